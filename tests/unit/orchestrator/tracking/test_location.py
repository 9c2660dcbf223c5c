"""Where the store is, and the addresses in its UI."""

import sys
from pathlib import Path

import pytest

from orchestrator.config.loading import with_uri_of_environment
from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.run_directory import RunDirectory
from orchestrator.tracking import location
from tests.fabricate import fabricate


def configured(root: Path, uri: str | None) -> tuple[TournamentConfig, RunDirectory]:
    return fabricate(root / "runs" / "demo", settled={}, settings={"tracking": {"uri": uri}})


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        (None, "sqlite:///{root}/runs/mlflow.db"),
        ("sqlite:///store/mlflow.db", "sqlite:///{root}/runs/store/mlflow.db"),
        ("sqlite:////store/mlflow.db", "sqlite:////store/mlflow.db"),
        ("http://mlflow:5000/", "http://mlflow:5000"),
    ],
)
def test_a_store_lies_beside_the_run_directory_or_where_the_config_says(
    tmp_path: Path, uri: str | None, expected: str
) -> None:
    assert location.store_uri(*configured(tmp_path, uri)) == expected.format(root=tmp_path)


def test_mlflows_own_variable_counts_where_the_config_names_no_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, named = configured(tmp_path / "a", None)[0], configured(tmp_path / "b", "http://mlflow:5000")[0]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert with_uri_of_environment(silent) == silent
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://everyone:5000")
    assert with_uri_of_environment(silent).tracking.uri == "http://everyone:5000"
    assert with_uri_of_environment(named) == named
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db")
    assert with_uri_of_environment(silent).tracking.uri == f"sqlite:///{tmp_path}/mlflow.db"


def test_the_ui_of_a_server_is_its_address(tmp_path: Path) -> None:
    assert location.ui_argv(*configured(tmp_path, "https://mlflow:5000"), 5001) == ["https://mlflow:5000"]


def test_the_ui_of_a_file_is_served_here(tmp_path: Path) -> None:
    argv = location.ui_argv(*configured(tmp_path, None), 5001)
    assert argv[:4] == [sys.executable, "-m", "mlflow", "server"]
    assert argv[argv.index("--artifacts-destination") + 1] == str(tmp_path / "runs" / "mlflow-artifacts")
    assert argv[argv.index("--port") + 1] == "5001"


def test_a_password_is_not_shown() -> None:
    assert location.shown("http://user:secret@mlflow:5000/x") == "http://mlflow:5000/x"
    assert location.shown("http://mlflow:5000") == "http://mlflow:5000"


def test_addresses_in_notes_are_filled_in() -> None:
    note = location.linked(f"[chart]({location.CHART_LINK}), [tree]({location.TREE_LINK})", "7")
    assert note == f"[chart]({location.chart_path('7')}), [tree]({location.tree_path('7')})"
    assert "tags.chart%20%3D%20%22rounds%22" in note
    assert location.run_path("7", "abc").startswith("#/experiments/7/runs/abc?")


def test_a_store_that_cannot_be_written_is_found_out_at_once(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    with pytest.raises(OSError), location.opening(f"sqlite:///{tmp_path}/store/mlflow.db"):
        raise AssertionError("it was opened")
    with location.opening(f"sqlite:///{tmp_path}/new/mlflow.db"):
        assert (tmp_path / "new" / "mlflow.db").exists()
