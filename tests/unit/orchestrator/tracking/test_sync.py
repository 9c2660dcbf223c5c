"""MLflow as an observer of the record, on a real MLflow with a SQLite store."""

import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BrokenRecord
from evaluation.figures import FIGURES
from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.events import Noted, State, TournamentEnded
from orchestrator.record.run_directory import RunDirectory
from orchestrator.tracking import sync
from orchestrator.tracking.ledger import Ledger, ledger_file
from orchestrator.tracking.location import run_path, store_uri, ui_argv
from orchestrator.tracking.points import champions
from orchestrator.tracking.sync import MlflowTracker
from tests.fabricate import REFERENCES
from tests.tracked import client_of, make, runs_of, series, snapshot_of

mlflow = pytest.importorskip("mlflow")

Made = tuple[TournamentConfig, RunDirectory]
NEWS = [Noted("something happened")]


@pytest.fixture(autouse=True)
def _environment() -> Iterator[None]:
    """The tracker sets MLflow's environment; the next test starts with the old one."""
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A whole tournament, sent."""
    config, run = make(
        tmp_path_factory.mktemp("runs") / "demo", forfeits={("llama", 2, "full"): "ran out of memory: 4 GiB"}
    )
    tracker = MlflowTracker(config, run)
    tracker.open()
    assert tracker.sync("running")
    tracker.hear([TournamentEnded("finished")])
    return config, run


def test_the_tree_has_a_run_for_each_level(whole: Made) -> None:
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


def test_every_config_value_is_a_parameter(whole: Made) -> None:
    runs = runs_of(*whole)
    assert runs[""].data.params["budget.tokens"] == "100000"
    assert runs[""].data.params["competitors.lora-r16.adapter.rank"] == "16"
    assert runs[""].data.params["cluster.address"] == "null"
    assert runs["llama/1/lora-r16"].data.params["adapter.rank"] == "16"
    assert runs["llama"].data.params == {"base": "hub/llama-3b"}


def test_lineages_and_references_are_lines_over_rounds(whole: Made) -> None:
    config, run = whole
    runs, client, snapshot = runs_of(config, run), client_of(config, run), snapshot_of(run)
    line = [(number, card) for number, _, card in champions(snapshot.lineages[0])]
    for name in FIGURES:
        expected = [(number, round(card.test_figures[name], 6)) for number, card in line]
        assert series(client, runs["llama"], f"test_{name}") == expected
    expected = [(number, round(card.validation.loss, 6)) for number, card in line]
    assert series(client, runs["llama"], "validation_loss") == expected
    loss = round(snapshot.references["instruct"].reported.loss, 6)
    assert series(client, runs["reference:instruct"], "test_loss") == [(0, loss), (1, loss), (2, loss)]
    published = runs["reference:published llama"]
    assert series(client, published, "test_loss") == [(0, 4.78), (1, 0.87), (2, 0.7)]
    assert published.data.tags["published"] == "true"
    charted = {key for key, one in runs.items() if one.data.tags.get("chart") == "rounds"}
    assert charted == {"llama", "reference:instruct", "reference:published llama"}
    assert len({runs[key].data.tags["mlflow.runColor"] for key in charted}) == 3


def test_competitors_have_their_curve_scores_costs_and_reason(whole: Made) -> None:
    config, run = whole
    runs, client = runs_of(config, run), client_of(config, run)
    one = runs["llama/1/lora-r16"]
    curve = client.get_metric_history(one.info.run_id, "train_loss")
    assert [point.step for point in curve] == list(range(2000, 102_000, 2000))
    assert curve[0].timestamp == int(1.8e12)
    assert series(client, one, "tokens_per_second")[0] == (2000, round(2000 / 1.2, 6))
    first = snapshot_of(run).lineages[0].rounds[0]
    entry = first.entry("lora-r16")
    assert entry is not None
    assert entry.scorecard is not None
    assert entry.submission is not None
    assert first.verdict is not None
    standing = first.verdict.standing("lora-r16")
    assert standing is not None
    expected = {
        "validation_loss": standing.validation_loss,
        "improvement": standing.improvement,
        "train_tokens": entry.submission.train_tokens,
        "device_seconds": entry.submission.device_seconds,
    }
    proof = first.verdict.proof_of(entry.name)
    assert (proof is None) == (entry.name != first.verdict.winner)
    expected |= {} if proof is None else {"improvement_low": proof.improvement_low}
    for metric, value in expected.items():
        assert series(client, one, metric) == [(1, round(float(value), 6))]
    forfeit = runs["llama/2/full"]
    assert forfeit.data.tags["status"] == "forfeit"
    assert forfeit.data.tags["reason"] == "ran out of memory: 4 GiB"
    for run_id in (forfeit.info.run_id, one.info.run_id):
        assert [file.path for file in client.list_artifacts(run_id)] == ["log.txt"]


def test_notes_artifacts_and_data(whole: Made) -> None:
    config, run = whole
    runs, client = runs_of(config, run), client_of(config, run)
    files = [file.path for file in client.list_artifacts(runs[""].info.run_id)]
    assert files == ["environment.json", "leaderboard.json", "report.html", "tournament.yaml"]
    assert [file.path for file in client.list_artifacts(runs["llama/1"].info.run_id)] == ["verdict.json"]
    verdict = json.loads((run.round("llama", 1) / "verdict.json").read_text())
    assert all(reason in runs["llama/1"].data.tags["mlflow.note.content"] for reason in verdict["reasons"])
    assert "| 0 | base |" in runs[""].data.tags["mlflow.note.content"]
    data = {one.tags[0].value: one.dataset for one in runs[""].inputs.dataset_inputs}
    assert set(data) == {"train", "validation", "proof", "test"}
    assert data["train"].digest == "5" * 12
    assert json.loads(data["test"].source) == {"uri": (run.held_out / "test.parquet").as_uri()}
    assert (run.root.parent / "mlflow-artifacts").is_dir()


def test_the_champion_is_registered_where_it_lies(whole: Made) -> None:
    config, run = whole
    client, runs = client_of(config, run), runs_of(config, run)
    crowned = [verdict for verdict in snapshot_of(run).lineages[0].verdicts if verdict.dethroned]
    versions = client.search_model_versions("name = 'demo-llama'")
    assert len(versions) == len(crowned) >= 1
    champion = client.get_model_version_by_alias("demo-llama", "champion")
    folder = run.round("llama", crowned[-1].round) / "champion"
    assert champion.source == folder.as_uri()
    assert champion.tags["round"] == str(crowned[-1].round)
    trained = f"llama/{crowned[-1].round}/{crowned[-1].champion.competitor}"
    assert champion.run_id == runs[trained].info.run_id


def test_the_ui_opens_on_this_store(whole: Made) -> None:
    config, run = whole
    command = ui_argv(config, run, port=5123)
    assert command[:5] == [sys.executable, "-m", "mlflow", "server", "--backend-store-uri"]
    assert command[5] == f"sqlite:///{run.root.parent}/mlflow.db"
    assert "5123" in command
    ledger = Ledger.of(run, store_uri(config, run))
    assert ledger.experiment_id is not None
    top = ledger.runs[""].run_id
    assert run_path(ledger.experiment_id, top).startswith(f"#/experiments/{ledger.experiment_id}/runs/{top}")
    assert runs_of(config, run)[""].info.run_id == top


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
    tracker = MlflowTracker(config, run)
    assert tracker.sync("stopped")
    before, remembered = contents(config, run), ledger_file(run).read_text()
    tracker._store = Refusing()  # type: ignore[assignment]
    assert tracker.sync("stopped")
    fresh = MlflowTracker(config, run)  # as a driver that goes on
    assert fresh.sync("stopped")
    assert ledger_file(run).read_text() == remembered
    ledger_file(run).unlink()  # a crash before it was written: the runs are found by their tags
    assert MlflowTracker(config, run).sync("stopped")
    assert contents(config, run) == before
    assert len(client_of(config, run).search_model_versions("name = 'demo-llama'")) == 1


def test_the_report_is_not_sent_at_each_change(tmp_path: Path) -> None:
    config, run = make(tmp_path / "demo", rounds=1, references=[])
    tracker = MlflowTracker(config, run)

    def sent(text: str, state: State) -> str:
        run.report_file.write_text(text)
        assert tracker.sync(state)
        found = client_of(config, run).download_artifacts(runs_of(config, run)[""].info.run_id, "report.html")
        return Path(found).read_text()

    assert [sent("one", "running"), sent("three", "running"), sent("three!", "stopped")] == ["one", "one", "three!"]


def test_what_was_sent_is_written_down_once_for_many_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It names them all: written for each of a thousand it would be the most of the work."""
    monkeypatch.setattr(sync, "REMEMBER_SECONDS", 1000.0)
    config, run = make(tmp_path / "run")
    written, write = list[Ledger](), RunDirectory.write

    def counted(self: RunDirectory, record: Any, path: Path) -> Any:
        written.append(record)
        return write(self, record, path)

    monkeypatch.setattr(RunDirectory, "write", counted)
    tracker = MlflowTracker(config, run)
    tracker._remembered = time.monotonic()
    assert tracker.sync("running")
    (ledger,) = written
    assert len(ledger.runs) > 6
    assert Ledger.read(ledger_file(run)) == ledger
    tracker.close("finished")


def test_a_stopped_tournament_goes_on_in_the_same_runs(tmp_path: Path) -> None:
    config, run = make(tmp_path / "demo", settled={"llama": 1}, training=True, references=[])
    first = MlflowTracker(config, run)
    first.open()
    event = {"event": "step", "step": 1, "tokens": 10, "loss": 2.0, "seconds": 1.0, "time": 1.8e9}
    progress = run.entry("llama", 2, "lora-r16") / "progress.jsonl"
    progress.write_text(json.dumps(event) + "\n" + '{"event": "st')
    first.hear([TournamentEnded("stopped")])
    runs = runs_of(config, run)
    assert {runs[key].info.status for key in ("", "llama", "llama/2", "llama/2/lora-r16")} == {"KILLED"}
    assert runs["llama/1"].info.status == "FINISHED"
    second = MlflowTracker(config, run)
    second.open()
    progress.write_text("".join(json.dumps(event | {"tokens": n}) + "\n" for n in (10, 20, 30)))
    second.hear(NEWS)
    again = runs_of(config, run)
    assert {key: one.info.run_id for key, one in again.items()} == {key: one.info.run_id for key, one in runs.items()}
    assert {again[key].info.status for key in ("", "llama", "llama/2/lora-r16")} == {"RUNNING"}
    curve = series(client_of(config, run), again["llama/2/lora-r16"], "train_loss")
    assert curve == [(10, 2.0), (20, 2.0), (30, 2.0)]
    second.close("stopped")


def test_another_tournament_at_the_same_path_has_runs_of_its_own(tmp_path: Path) -> None:
    def tournament(run_id: str, tokens: int, folder: str = "demo", rounds: int = 1) -> dict[str, Any]:
        config, run = make(tmp_path / folder, rounds=rounds, references=[], settings={"budget": {"tokens": tokens}})
        run.environment_file.write_text(json.dumps({"run_id": run_id}))
        assert MlflowTracker(config, run).sync("stopped")
        store = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db", f"sqlite:///{tmp_path}/mlflow.db")
        where = f"tags.`tournament.run_id` = '{run_id}'"
        found = store.search_runs([store.get_experiment_by_name("demo").experiment_id], where)
        return {one.data.tags["tournament.key"]: one for one in found}

    old = tournament("one", 5, rounds=2)
    shutil.rmtree(tmp_path / "demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tests.tracked.give_store", lambda folder: None)  # the store beside it stays
        new = tournament("two", 7)
        assert new["tournament"].data.params["budget.tokens"] == "7"
        assert set(old) - set(new) == {"llama/2", "llama/2/lora-r16", "llama/2/full"}
        assert not {one.info.run_id for one in old.values()} & {one.info.run_id for one in new.values()}
        # One that was moved is itself.
        moved = tournament("two", 7, folder="elsewhere")
    assert {one.info.run_id for one in moved.values()} == {one.info.run_id for one in new.values()}


def test_values_that_are_no_numbers_are_left_out_and_named(tmp_path: Path) -> None:
    config, run = make(tmp_path / "demo", rounds=1, references=[])
    events = [{"event": "step", "tokens": n, "loss": loss} for n, loss in ((1, 2.0), (2, float("nan")), (3, "broken"))]
    path = run.entry("llama", 1, "full") / "progress.jsonl"
    path.write_text("".join(json.dumps(event) + "\n" for event in events) + "[1]\nnot json\n")
    assert MlflowTracker(config, run).sync("stopped")
    one = runs_of(config, run)["llama/1/full"]
    assert series(client_of(config, run), one, "train_loss") == [(1, 2.0)]
    assert "loss is nan" in one.data.tags["left_out"]


def test_scores_that_are_no_numbers_are_left_out_and_named(tmp_path: Path) -> None:
    def diverging(lineage: str, number: int, competitor: str) -> float:
        return float("inf") if competitor == "full" else 1.0

    config, run = make(tmp_path / "demo", rounds=1, references=[], loss=diverging)
    assert MlflowTracker(config, run).sync("stopped")
    one = runs_of(config, run)["llama/1/full"]
    assert series(client_of(config, run), one, "validation_loss") == []
    assert "validation_loss is inf" in one.data.tags["left_out"]


def test_an_unreachable_database_is_a_warning_and_then_gets_all(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "store").write_text("a file where the store's folder should be")
    settings = {"tracking": {"uri": "sqlite:///store/mlflow.db", "experiment": "elsewhere"}}
    config, run = make(tmp_path / "demo", rounds=1, references=[], settings=settings)
    tracker = MlflowTracker(config, run)
    with caplog.at_level(logging.WARNING, "orchestrator"):
        tracker.open()
        assert not tracker.sync("stopped")
        tracker.hear(NEWS)
        tracker.hear([TournamentEnded("stopped")])
    assert len(caplog.records) == 1
    assert not ledger_file(run).exists()
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
    tracker = MlflowTracker(config, run)
    tracker.open()
    assert not tracker.sync("running")
    tracker.close("finished")
    assert ui_argv(config, run) == [settings["tracking"]["uri"]]


def test_trouble_that_is_not_the_stores_is_raised(tmp_path: Path) -> None:
    config, run = make(tmp_path / "demo", rounds=1, references=[])
    (run.round("llama", 1) / "verdict.json").write_text("{")
    with pytest.raises(BrokenRecord, match=r"verdict\.json"):
        MlflowTracker(config, run).hear(NEWS)


def test_one_thing_refused_leaves_the_rest_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, run = make(tmp_path / "demo", rounds=1, references=REFERENCES[1:])
    from orchestrator.tracking.mlflow_store import MlflowStore

    def refuse(self: MlflowStore, run_id: str, model: object) -> str:
        raise mlflow.exceptions.MlflowException("no registry here")

    with monkeypatch.context() as patch:
        patch.setattr(MlflowStore, "register", refuse)
        tracker = MlflowTracker(config, run)
        assert not tracker.sync("stopped")
        assert len(runs_of(config, run)) == 6
    assert tracker.sync("stopped")
    assert client_of(config, run).get_model_version_by_alias("demo-llama", "champion").version


def test_an_earlier_champion_that_is_sent_late_does_not_get_the_alias(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, run = make(tmp_path / "demo", references=[])
    from orchestrator.tracking.mlflow_store import MlflowStore

    register = MlflowStore.register

    def refuse_the_first(self: MlflowStore, run_id: str, model: Any) -> str:
        if model.tags["round"] == "1":
            raise mlflow.exceptions.MlflowException("413 Request Entity Too Large")
        return register(self, run_id, model)

    with monkeypatch.context() as patch:
        patch.setattr(MlflowStore, "register", refuse_the_first)
        assert not MlflowTracker(config, run).sync("stopped")
    assert MlflowTracker(config, run).sync("stopped")
    client = client_of(config, run)
    assert {one.tags["round"] for one in client.search_model_versions("name = 'demo-llama'")} == {"1", "2"}
    assert client.get_model_version_by_alias("demo-llama", "champion").tags["round"] == "2"


def test_a_store_that_lost_the_runs_gets_them_again(tmp_path: Path) -> None:
    config, run = make(tmp_path / "demo", rounds=1, references=[])
    MlflowTracker(config, run).sync("stopped")
    old = runs_of(config, run)
    client_of(config, run).delete_run(old[""].info.run_id)
    for key in set(old) - {""}:
        client_of(config, run).delete_run(old[key].info.run_id)
    assert MlflowTracker(config, run).sync("stopped")
    new = runs_of(config, run)
    assert set(new) == set(old)
    assert new[""].info.run_id != old[""].info.run_id


def test_only_the_store_imports_mlflow() -> None:
    code = "import sys, orchestrator.tracking.trackers; sys.exit('mlflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
