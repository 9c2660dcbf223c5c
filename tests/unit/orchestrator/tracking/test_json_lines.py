"""What happened, as JSON lines."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from evaluation.figures import FIGURES
from orchestrator.record.events import Noted, TournamentEnded
from orchestrator.tracking.json_lines import JsonLinesTracker
from tests.fabricate import fabricate
from tests.tracked import make, snapshot_of

NEWS = [Noted("something happened")]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def ids(path: Path) -> list[str]:
    return [line["id"] for line in lines(path)]


def test_all_that_is_on_record_is_told(tmp_path: Path) -> None:
    forfeits, rejections = {("llama", 1, "full"): "out of memory"}, {("llama", 2, "full"): "weights are missing"}
    _, run = make(tmp_path / "demo", forfeits=forfeits, rejections=rejections)
    JsonLinesTracker(run).hear([*NEWS, TournamentEnded("finished")])
    path = run.root / "events.jsonl"
    told = {line["id"]: line for line in lines(path)}
    assert len(told) == len(lines(path))
    assert [line["time"] for line in lines(path)] == sorted(line["time"] for line in lines(path))
    lora = [f"lora-r16/{state}" for state in ("training", "delivered", "inspected", "scored")]
    expected = {f"llama/{n}/{what}" for n in (1, 2) for what in ("round", *lora, "full/training", "verdict")}
    expected |= {"llama/1/full/forfeit", "llama/2/full/delivered", "llama/2/full/rejected"}
    crowned = [verdict for verdict in snapshot_of(run).lineages[0].verdicts if verdict.dethroned]
    expected |= {f"llama/{verdict.round}/champion" for verdict in crowned}
    assert {key for key in told if not key.startswith("/end/")} == expected
    scored = told["llama/1/lora-r16/scored"]
    assert [scored[key] for key in ("event", "lineage", "round", "competitor")] == ["entry", "llama", 1, "lora-r16"]
    assert [key for key in scored if key.endswith("_loss")] == ["validation_loss"]
    crowning = told[f"llama/{crowned[0].round}/champion"]
    assert {"validation_loss", *(f"test_{name}" for name in FIGURES)} <= crowning.keys()
    assert told["llama/1/lora-r16/delivered"]["train_tokens"] == 100_000
    assert told["llama/1/full/forfeit"]["reason"] == "out of memory"
    assert told["llama/2/full/rejected"]["reason"] == "weights are missing"
    assert told["llama/1/verdict"]["champion"] == str(snapshot_of(run).lineages[0].verdicts[0].champion)
    assert told["llama/1/champion"]["path"] == str(run.round("llama", 1) / "champion")
    assert lines(path)[-1] == lines(path)[-1] | {"event": "end", "state": "finished", "tournament": "demo"}


def test_nothing_is_written_twice(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo")
    tracker, path = JsonLinesTracker(run), run.root / "events.jsonl"
    for _ in range(2):
        tracker.hear(NEWS)
    for _ in range(2):
        tracker.hear([*NEWS, TournamentEnded("stopped"), TournamentEnded("stopped")])
    before = path.read_bytes()
    JsonLinesTracker(run).hear([*NEWS, TournamentEnded("stopped")])  # as a driver that goes on, and stops at once
    assert path.read_bytes() == before
    assert ids(path)[-1].startswith("/end/stopped/")
    JsonLinesTracker(run).hear([TournamentEnded("finished")])
    assert ids(path)[-1].startswith("/end/finished/")
    assert len(ids(path)) == len(set(ids(path)))


def test_a_last_line_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo")
    path = run.root / "events.jsonl"
    JsonLinesTracker(run).hear(NEWS)
    whole = path.read_bytes()
    path.write_bytes(whole[:-20])
    JsonLinesTracker(run).hear(NEWS)
    assert path.read_bytes() == whole


def test_after_a_failure_the_rest_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = make(tmp_path / "demo", settled={"llama": 1}, training=True)
    tracker, path = JsonLinesTracker(run), run.root / "events.jsonl"
    tracker.hear(NEWS)
    before = ids(path)
    (verdict,) = snapshot_of(run).lineages[0].verdicts
    run.write(verdict, run.round("llama", 2) / "verdict.json")

    def full(self: JsonLinesTracker, news: list[Any], tournament: str) -> None:
        with self.path.open("a") as stream:
            stream.write('{"id": "llama/2/ver')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(JsonLinesTracker, "_append", full)
        with pytest.raises(OSError):
            tracker.hear(NEWS)
    tracker.hear(NEWS)
    assert ids(path) == [*before, "llama/2/verdict"]


def test_lines_that_are_not_ours_are_left_alone(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", settled={"llama": 1})
    path = run.root / "events.jsonl"
    strange = b'not json\n[1]\n{"id": [1]}\n{}\n'
    path.write_bytes(strange)
    JsonLinesTracker(run).hear(NEWS)
    assert path.read_bytes().startswith(strange)
    assert b"llama/1/verdict" in path.read_bytes()


def test_numbers_that_are_none_stand_as_words(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", rounds=1, loss=lambda lineage, number, name: float("inf") if number else 4.5)
    JsonLinesTracker(run).hear(NEWS)
    told = {line["id"]: line for line in lines(run.root / "events.jsonl")}
    assert told["llama/1/full/scored"]["validation_loss"] == "Infinity"


def test_the_config_chooses_it_and_its_file(tmp_path: Path) -> None:
    chosen = {}
    for index, value in enumerate((False, True, "logs/events.jsonl", str(tmp_path / "elsewhere.jsonl"))):
        config, run = fabricate(
            tmp_path / str(index) / "demo", settled={}, settings={"tracking": {"json_lines": value}}
        )
        assert run.config.tracking.json_lines == value
        tracker = JsonLinesTracker.chosen(config, run)
        chosen[value] = tracker and tracker.path
    assert chosen == {
        False: None,
        True: tmp_path / "1" / "demo" / "events.jsonl",
        "logs/events.jsonl": tmp_path / "2" / "logs" / "events.jsonl",
        str(tmp_path / "elsewhere.jsonl"): tmp_path / "elsewhere.jsonl",
    }


def test_a_file_that_cannot_be_written_is_found_out_before_the_start(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", settled={})
    with pytest.raises(UserError, match=r"tracking\.json_lines"):
        JsonLinesTracker(run, tmp_path).open()
    tracker = JsonLinesTracker(run, tmp_path / "logs" / "events.jsonl")
    tracker.open()
    assert tracker.path.read_bytes() == b""
