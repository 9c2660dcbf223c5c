"""MLflow as a view of the run directory, on a real MLflow with a SQLite store."""

import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from competitors.contract import Brief
from orchestrator.config import TournamentConfig
from orchestrator.record.run_directory import RunDirectory
from orchestrator.tracking.ledger import Memory, memory_file, store_uri, ui_argv, ui_path
from orchestrator.tracking.points import of_event
from orchestrator.tracking.sync import Tracker
from orchestrator.tracking.words import parameters
from orchestrator.views import leaderboard
from tests.fabricate import COMPETITORS, REFERENCES, fabricate

mlflow = pytest.importorskip("mlflow")

TWO = COMPETITORS[:2]


def make(root: Path, **more: Any) -> tuple[TournamentConfig, RunDirectory]:
    """A small fabricated run with the briefs and the leaderboard that a real one has."""
    config, run = fabricate(root, lineages=("llama",), competitors=TWO, **more)
    for folder in root.glob("lineages/*/round-*"):
        for recipe in config.competitors:
            entry = folder / recipe.name
            if entry.is_dir():
                brief(config, run, "llama", int(folder.name[-3:]), recipe.name).write(entry / "brief.json")
                (entry / "log.txt").write_text("out of memory\n")
    run.environment_file.write_text("{}")
    run.report_file.write_text("<p>report</p>")
    leaderboard.write(config, run, "finished")
    return config, run


def brief(config: TournamentConfig, run: RunDirectory, lineage: str, number: int, name: str) -> Brief:
    return Brief(
        tournament=config.name,
        lineage=lineage,
        round=number,
        competitor=name,
        seed_model=run.round(lineage, number - 1) / "seed",
        seed_sha256="1" * 64,
        seed_continuation=None,
        train_data=run.data / "train.parquet",
        max_tokens=64,
        budget=config.budget.allowance,
        progress=(0.0, 1.0),
        output_dir=run.entry(lineage, number, name) / "submission",
        random_seed=1,
        resources=config.competitors[0].resources,
    )


def client_of(config: TournamentConfig, run: RunDirectory) -> Any:
    uri = store_uri(config, run)
    return mlflow.MlflowClient(uri, uri)


def runs_of(config: TournamentConfig, run: RunDirectory) -> dict[str, Any]:
    """The store's runs by key."""
    client = client_of(config, run)
    experiment = client.get_experiment_by_name(config.tracking.experiment or config.name)
    found = client.search_runs([experiment.experiment_id], max_results=500)
    assert len({one.data.tags["tournament.key"] for one in found}) == len(found)
    return {one.data.tags["tournament.key"].removeprefix("tournament"): one for one in found}


def series(client: Any, one: Any, metric: str) -> list[tuple[int, float]]:
    return sorted((point.step, round(point.value, 6)) for point in client.get_metric_history(one.info.run_id, metric))


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """The tracker sets MLflow's environment; the next test starts with the old one."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[TournamentConfig, RunDirectory]:
    """A whole tournament, sent."""
    config, run = make(
        tmp_path_factory.mktemp("runs") / "demo", forfeits={("llama", 2, "full"): "ran out of memory: 4 GiB"}
    )
    tracker = Tracker(config, run)
    tracker.open()
    assert tracker.sync("running")
    tracker.close("finished")
    return config, run


def test_the_tree_has_a_run_for_each_level(whole: tuple[TournamentConfig, RunDirectory]) -> None:
    runs = runs_of(*whole)
    lineage = {"llama", *(f"llama/{n}{tail}" for n in (1, 2) for tail in ("", "/lora-r16", "/full"))}
    assert set(runs) == {"", "reference:instruct", "reference:published llama", *lineage}
    for key, one in runs.items():
        parent = key.rpartition("/")[0]
        expected = runs[parent].info.run_id if key else None
        assert one.data.tags.get("mlflow.parentRunId") == expected
    levels = [one.data.tags["tournament.level"] for _, one in sorted(runs.items())]
    assert levels == ["tournament", "lineage", *["round", "competitor", "competitor"] * 2, "reference", "reference"]
    assert runs["llama/2"].info.run_name == "round 2 (llama)"
    assert runs["llama/2/lora-r16"].info.run_name == "lora-r16"
    assert runs["llama/2/full"].info.status == "FAILED"
    assert {runs[key].info.status for key in ("", "llama", "llama/1", "llama/1/full")} == {"FINISHED"}


def test_every_config_value_is_a_parameter(whole: tuple[TournamentConfig, RunDirectory]) -> None:
    runs = runs_of(*whole)
    assert runs[""].data.params["budget.tokens"] == "100000"
    assert runs[""].data.params["competitors.lora-r16.adapter.rank"] == "16"
    assert runs[""].data.params["cluster.address"] == "null"
    assert runs["llama/1/lora-r16"].data.params["adapter.rank"] == "16"
    assert runs["llama"].data.params == {"base": "hub/llama-3b"}


def test_lineages_and_references_are_lines_over_rounds(whole: tuple[TournamentConfig, RunDirectory]) -> None:
    config, run = whole
    runs, client = runs_of(config, run), client_of(config, run)
    board = leaderboard.build(config, run, "finished")
    rows = board.lineages[0].rounds
    for metric in ("test_loss", "validation_loss", "test_bits_per_byte", "test_perplexity"):
        expected = [(row.round, round(getattr(row, metric), 6)) for row in rows]
        assert series(client, runs["llama"], metric) == expected
    line = round(board.references[0].test_loss, 6)
    assert series(client, runs["reference:instruct"], "test_loss") == [(0, line), (1, line), (2, line)]
    published = runs["reference:published llama"]
    assert series(client, published, "test_loss") == [(0, 4.78), (1, 0.87), (2, 0.7)]
    assert published.data.tags["published"] == "true"
    charted = {key for key, one in runs.items() if one.data.tags.get("chart") == "rounds"}
    assert charted == {"llama", "reference:instruct", "reference:published llama"}
    assert len({runs[key].data.tags["mlflow.runColor"] for key in charted}) == 3


def test_competitors_have_their_curve_scores_costs_and_reason(whole: tuple[TournamentConfig, RunDirectory]) -> None:
    config, run = whole
    runs, client = runs_of(config, run), client_of(config, run)
    one = runs["llama/1/lora-r16"]
    curve = client.get_metric_history(one.info.run_id, "train_loss")
    assert [point.step for point in curve] == list(range(2000, 102_000, 2000))
    assert curve[0].timestamp == int(1.8e12)
    assert series(client, one, "tokens_per_second")[0] == (2000, round(2000 / 1.2, 6))
    row = next(e for e in leaderboard.build(config, run, "finished").lineages[0].rounds[1].entries if e.kind == "sft")
    for metric in ("validation_loss", "test_loss", "improvement", "improvement_low", "train_tokens", "device_seconds"):
        entry = runs[f"llama/1/{row.competitor}"]
        assert series(client, entry, metric) == [(1, round(float(getattr(row, metric)), 6))]
    forfeit = runs["llama/2/full"]
    assert forfeit.data.tags["status"] == "forfeit"
    assert forfeit.data.tags["reason"] == "ran out of memory: 4 GiB"
    assert [file.path for file in client.list_artifacts(forfeit.info.run_id)] == ["log.txt"]


def test_notes_artifacts_and_data(whole: tuple[TournamentConfig, RunDirectory]) -> None:
    config, run = whole
    runs, client = runs_of(config, run), client_of(config, run)
    files = [file.path for file in client.list_artifacts(runs[""].info.run_id)]
    assert files == ["environment.json", "leaderboard.json", "report.html", "tournament.yaml"]
    assert [file.path for file in client.list_artifacts(runs["llama/1"].info.run_id)] == ["verdict.json"]
    verdict = json.loads((run.round("llama", 1) / "verdict.json").read_text())
    assert all(reason in runs["llama/1"].data.tags["mlflow.note.content"] for reason in verdict["reasons"])
    assert "| 0 | base |" in runs[""].data.tags["mlflow.note.content"]
    data = {one.tags[0].value: one.dataset for one in runs[""].inputs.dataset_inputs}
    assert set(data) == {"train", "validation", "test"}
    assert data["train"].digest == "5" * 12
    assert json.loads(data["test"].source) == {"uri": (run.held_out / "test.parquet").as_uri()}
    assert (run.root.parent / "mlflow-artifacts").is_dir()


def test_the_champion_is_registered_where_it_lies(whole: tuple[TournamentConfig, RunDirectory]) -> None:
    config, run = whole
    client, runs = client_of(config, run), runs_of(config, run)
    verdicts = leaderboard.settled(config, run, config.lineages[0])
    crowned = [verdict for verdict in verdicts if verdict.dethroned]
    versions = client.search_model_versions("name = 'demo-llama'")
    assert len(versions) == len(crowned) >= 1
    champion = client.get_model_version_by_alias("demo-llama", "champion")
    folder = run.round("llama", crowned[-1].round) / "champion"
    assert champion.source == folder.as_uri()
    assert champion.tags["round"] == str(crowned[-1].round)
    trained = f"llama/{crowned[-1].round}/{crowned[-1].champion.partition('@')[0]}"
    assert champion.run_id == runs[trained].info.run_id


def contents(config: TournamentConfig, run: RunDirectory) -> dict[str, Any]:
    client = client_of(config, run)
    return {
        key: (one.info.run_id, one.data.to_dictionary(), len(client.get_metric_history(one.info.run_id, "train_loss")))
        for key, one in runs_of(config, run).items()
    }


class Refusing:
    """A store that takes nothing: what a sync with nothing new must get by with."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} was sent again")


def test_nothing_is_sent_twice(tmp_path: Path) -> None:
    config, run = make(tmp_path / "demo", rounds=1)
    tracker = Tracker(config, run)
    assert tracker.sync("stopped")
    before, remembered = contents(config, run), memory_file(run).read_text()
    tracker._store = Refusing()  # type: ignore[assignment]
    assert tracker.sync("stopped")
    fresh = Tracker(config, run)  # as a driver that goes on
    assert fresh.sync("stopped")
    assert memory_file(run).read_text() == remembered
    memory_file(run).unlink()  # a crash before it was written: the runs are found by their tags
    assert Tracker(config, run).sync("stopped")
    assert contents(config, run) == before
    assert len(client_of(config, run).search_model_versions("name = 'demo-llama'")) == 1


def test_a_stopped_tournament_goes_on_in_the_same_runs(tmp_path: Path) -> None:
    config, run = make(tmp_path / "demo", settled={"llama": 1}, references=[])
    first = Tracker(config, run)
    first.open()
    folder = run.entry("llama", 2, "lora-r16")
    (folder / "submission").mkdir(parents=True)
    brief(config, run, "llama", 2, "lora-r16").write(folder / "brief.json")
    event = {"event": "step", "step": 1, "tokens": 10, "loss": 2.0, "seconds": 1.0, "time": 1.8e9}
    progress = folder / "progress.jsonl"
    progress.write_text(json.dumps(event) + "\n" + '{"event": "st')
    first.close("stopped")
    runs = runs_of(config, run)
    assert {runs[key].info.status for key in ("", "llama", "llama/2", "llama/2/lora-r16")} == {"KILLED"}
    assert runs["llama/1"].info.status == "FINISHED"
    second = Tracker(config, run)
    second.open()
    progress.write_text("".join(json.dumps(event | {"tokens": n}) + "\n" for n in (10, 20, 30)))
    assert second.sync("running")
    again = runs_of(config, run)
    assert {key: one.info.run_id for key, one in again.items()} == {key: one.info.run_id for key, one in runs.items()}
    assert {again[key].info.status for key in ("", "llama", "llama/2/lora-r16")} == {"RUNNING"}
    curve = series(client_of(config, run), again["llama/2/lora-r16"], "train_loss")
    assert curve == [(10, 2.0), (20, 2.0), (30, 2.0)]
    second.close("stopped")


def test_values_that_are_no_numbers_are_left_out_and_named(tmp_path: Path) -> None:
    config, run = make(tmp_path / "demo", rounds=1, references=[])
    events = [{"event": "step", "tokens": n, "loss": loss} for n, loss in ((1, 2.0), (2, float("nan")), (3, "broken"))]
    path = run.entry("llama", 1, "full") / "progress.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events) + "[1]\nnot json\n")
    assert Tracker(config, run).sync("stopped")
    one = runs_of(config, run)["llama/1/full"]
    assert series(client_of(config, run), one, "train_loss") == [(1, 2.0)]
    assert one.data.tags["not_finite"] == "train_loss"


def test_an_unreachable_database_is_a_warning_and_then_gets_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store").write_text("a file where the store's folder should be")
    settings = {"tracking": {"uri": "sqlite:///store/mlflow.db", "experiment": "elsewhere"}}
    config, run = make(tmp_path / "demo", rounds=1, references=[], settings=settings)
    tracker = Tracker(config, run)
    with caplog.at_level(logging.WARNING, "orchestrator"):
        tracker.open()
        assert not tracker.sync("stopped")
        assert not tracker.sync("stopped")
    assert len(caplog.records) == 1
    assert not memory_file(run).exists()
    (tmp_path / "store").unlink()
    assert tracker.sync("stopped")
    assert len(runs_of(config, run)) == 5
    assert (tmp_path / "store" / "mlflow.db").exists()


def test_a_server_that_is_away_does_not_hold_anyone_up(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {"tracking": {"uri": f"http://user:secret@127.0.0.1:{port}"}}
    config, run = make(tmp_path / "demo", rounds=1, references=[], settings=settings)
    tracker = Tracker(config, run)
    tracker.open()
    assert not tracker.sync("running")
    tracker.close("finished")
    assert ui_argv(config, run) == [settings["tracking"]["uri"]]


def test_one_thing_refused_leaves_the_rest_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, run = make(tmp_path / "demo", rounds=1, references=REFERENCES[1:])
    from orchestrator.tracking.mlflow_store import MlflowStore

    def refuse(self: MlflowStore, run_id: str, model: object) -> str:
        raise mlflow.exceptions.MlflowException("no registry here")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowStore, "register", refuse)
        tracker = Tracker(config, run)
        assert not tracker.sync("stopped")
        assert len(runs_of(config, run)) == 6
    assert tracker.sync("stopped")
    assert client_of(config, run).get_model_version_by_alias("demo-llama", "champion").version


def test_a_store_that_lost_the_runs_gets_them_again(tmp_path: Path) -> None:
    config, run = make(tmp_path / "demo", rounds=1, references=[])
    Tracker(config, run).sync("stopped")
    old = runs_of(config, run)
    client_of(config, run).delete_run(old[""].info.run_id)
    for key in set(old) - {""}:
        client_of(config, run).delete_run(old[key].info.run_id)
    assert Tracker(config, run).sync("stopped")
    new = runs_of(config, run)
    assert set(new) == set(old)
    assert new[""].info.run_id != old[""].info.run_id


def test_parameters_fit_mlflow() -> None:
    given = [("references.a(1).model", "x"), ("references.a[1].model", None), ("data.prompt", "y" * 7000), ("l", [1])]
    assert parameters(given) == {
        "references.a-1-.model": "x",
        "references.a-1-.model-2": "null",
        "data.prompt": "y" * 5999 + "…",
        "l": "[1]",
    }


def test_events_of_strangers_do_no_harm() -> None:
    assert list(of_event({"event": "note", "loss": 1.0})) == []
    assert list(of_event({"event": "step", "loss": None, "tokens": True, "time": 1.0})) == []
    (point,) = of_event({"event": "step", "step": 7, "gpu_memory_megabytes": 12, "time": 2.0})
    assert (point.name, point.value, point.step, point.time_ms) == ("system/gpu_memory_megabytes", 12.0, 7, 2000)


def test_the_ui_opens_on_this_store(whole: tuple[TournamentConfig, RunDirectory]) -> None:
    config, run = whole
    command = ui_argv(config, run, port=5123)
    assert command[:5] == [sys.executable, "-m", "mlflow", "server", "--backend-store-uri"]
    assert command[5] == f"sqlite:///{run.root.parent}/mlflow.db"
    assert "5123" in command
    memory = Memory.of(run, store_uri(config, run))
    assert ui_path(config, run).startswith(f"#/experiments/{memory.experiment_id}/runs/{memory.runs[''].run_id}")


def test_only_tracking_imports_mlflow() -> None:
    code = (
        "import sys, orchestrator.tracking.sync, orchestrator.tracking.tree, orchestrator.tracking.ledger;"
        "sys.exit('mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
