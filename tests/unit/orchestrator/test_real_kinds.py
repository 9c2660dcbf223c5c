"""Real tournaments without Ray: real competitors and a real evaluator over the workers in this process."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from cluster.digest import model_sha256, sha256_of
from cluster.in_process import InProcessWorkers
from orchestrator.config.loading import load_entries
from orchestrator.record.changes import current, enter, extend, withdraw
from orchestrator.record.records import Verdict
from orchestrator.record.run_directory import RunDirectory
from tests.faked import deadlines_bind
from tests.tiny import tiny_tokenizer
from tests.tournaments import losses, make_inputs, python, run, sft, write_tournament


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def workers() -> InProcessWorkers:
    """One call at a time: they load models."""
    return InProcessWorkers(trainers=1, evaluators=0)


@pytest.fixture
def write_config(inputs: Path, tmp_path: Path) -> Any:
    def write(competitors: list[dict[str, Any]], **changes: Any) -> Path:
        return write_tournament(inputs, tmp_path, competitors, **changes)

    return write


def test_every_failure_forfeits_with_its_reason_and_the_round_goes_on(
    write_config: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    deadlines_bind(monkeypatch, "hangs", "hangs-with-a-checkpoint")
    config = write_config(
        [
            sft("good"),
            python("raises"),
            python("runs_out_of_memory"),
            python("hangs"),
            python("hangs_with_a_checkpoint"),
            python("writes_nothing"),
            python("writes_half"),
            python("writes_nan"),
        ],
        rounds=1,
        limits={"silence_minutes": 0.02, "startup_minutes": 2},
    )
    board = run(config, tmp_path / "run", workers())
    found = {e.competitor: e for e in board.lineages[0].rounds[1].entries}
    assert {name: entry.status for name, entry in found.items()} == {
        "good": "scored",
        "hangs-with-a-checkpoint": "scored",
        "raises": "forfeit",
        "runs-out-of-memory": "forfeit",
        "hangs": "forfeit",
        "writes-nothing": "forfeit",
        "writes-half": "forfeit",
        "writes-nan": "rejected",
    }
    reasons = {name: entry.reason for name, entry in found.items()}
    assert reasons["raises"] == "raised RuntimeError: a bug in my recipe"
    assert reasons["runs-out-of-memory"] == "ran out of memory"
    assert reasons["hangs"] == "had not reported for 0.02 minutes, and left no valid model"
    assert reasons["hangs-with-a-checkpoint"].startswith("had not reported for 0.02 minutes; all but its seed: ")
    assert reasons["writes-nothing"] == "used its budget, and left no valid model"
    assert reasons["writes-half"] == "used its budget, and left no valid model"
    assert "not finite" in reasons["writes-nan"]
    assert board.lineages[0].rounds[1].winner == "good"
    logs = {name: (tmp_path / "run" / str(entry.log)).read_text() for name, entry in found.items()}
    for name, entry in found.items():
        if entry.status == "forfeit":
            assert logs[name].endswith(f" forfeit: {entry.reason}\n")
    assert logs["good"].endswith(" delivered: used its budget\n")
    assert "Traceback" in logs["raises"]


@pytest.mark.parametrize("first", ["adapter", "merged"])
def test_an_adapter_and_the_model_that_it_makes_are_copies_of_each_other(write_config: Any, tmp_path: Path, first: str):
    field = [python("hands_in_an_adapter", "adapter"), python("hands_in_that_adapter_merged", "merged")]
    config = write_config(field if first == "adapter" else field[::-1], rounds=1)
    (row,) = run(config, tmp_path / "run", workers()).lineages[0].rounds[1:]
    reasons = {e.competitor: e.reason for e in row.entries if e.status == "rejected"}
    copy = "merged" if first == "adapter" else "adapter"
    assert reasons == {copy: f"is a copy of {first}: all rows have the same losses"}


def test_another_entrys_model_with_noise_on_it_is_its_copy(write_config: Any, tmp_path: Path):
    config = write_config([sft("good"), sft("other"), python("hands_in_good_with_noise", "noisy")], rounds=1)
    (row,) = run(config, tmp_path / "run", workers()).lineages[0].rounds[1:]
    reasons = {e.competitor: e.reason for e in row.entries if e.status == "rejected"}
    assert set(reasons) == {"noisy"}
    assert reasons["noisy"].startswith("is all but a copy of good: their weights lie 0.0")


@pytest.mark.parametrize("first", ["adapter", "merged"])
def test_an_adapter_that_is_rounded_to_be_scored_and_its_sum_before_that(
    write_config: Any, inputs: Path, tmp_path: Path, first: str
):
    base = tmp_path / "base"
    AutoModelForCausalLM.from_pretrained(inputs / "one", dtype=torch.bfloat16).save_pretrained(base)
    tiny_tokenizer().save_pretrained(base)
    field = [python("hands_in_an_adapter", "adapter"), python("hands_in_that_adapter_merged", "merged")]
    lineages = [{"name": "one", "base": str(base)}]
    config = write_config(field if first == "adapter" else field[::-1], rounds=1, lineages=lineages)
    (row,) = run(config, tmp_path / "run", workers()).lineages[0].rounds[1:]
    ((copy, reason),) = [(e.competitor, e.reason) for e in row.entries if e.status == "rejected"]
    assert copy == ("merged" if first == "adapter" else "adapter")
    assert reason == f"is all but a copy of {first}: their weights lie 0 apart of how far they moved"


@pytest.mark.slow
def test_whatever_is_handed_in_stops_nothing_and_changes_nothing_that_others_made(
    write_config: Any, inputs: Path, tmp_path: Path
):
    config = write_config(
        [
            sft("good"),
            sft("lora", adapter={"method": "lora", "rank": 4}),
            {"name": "control", "kind": "unchanged"},
            python("weights_of_1e30"),
            python("names_an_absent_shard"),
            python("speaks_of_a_full_disk"),
            python("reports_nonsense"),
        ]
    )
    before = _looks(inputs)
    board = run(config, tmp_path / "run", workers())
    assert _looks(inputs) == before
    for row in board.lineages[0].rounds[1:]:
        reasons = {e.competitor: e.reason for e in row.entries if e.status != "scored"}
        assert set(reasons) == {"weights-of-1e30", "names-an-absent-shard", "speaks-of-a-full-disk"}
        assert "is not finite" in reasons["weights-of-1e30"]
        assert "names model-00002-of-00002.safetensors, which is not there" in reasons["names-an-absent-shard"]
        for entry in row.entries:
            folder = tmp_path / "run" / "lineages" / "one" / f"round-{row.round:03d}" / entry.competitor
            assert model_sha256(folder / "submission") == entry.submission_sha256
    assert board.lineages[0].rounds[2].dethroned


def _looks(folder: Path) -> dict[Path, tuple[int, str]]:
    """Which file each is, and what it holds."""
    return {path: (path.stat().st_ino, sha256_of(path)) for path in folder.rglob("*") if path.is_file()}


def test_when_all_forfeit_the_incumbent_stays(write_config: Any, tmp_path: Path):
    board = run(write_config([python("raises"), python("writes_nothing")]), tmp_path / "run", workers())
    for row in board.lineages[0].rounds:
        assert (str(row.champion), str(row.seed_next), row.winner, row.dethroned) == ("base", "base", None, False)
    assert len(board.lineages[0].rounds) == 3


def test_patience_ends_a_lineage_early(write_config: Any, tmp_path: Path):
    config = write_config([python("returns_the_seed")], rounds=5, selection={"patience": 2})
    board = run(config, tmp_path / "run", workers())
    assert board.state == "finished"
    assert len(board.lineages[0].rounds) == 3
    assert Verdict.read(tmp_path / "run/lineages/one/round-002/verdict.json").ends_lineage


@pytest.mark.slow
def test_the_field_changes_by_evolution_by_hand_and_by_exploiting(write_config: Any, tmp_path: Path):
    carried = {"continue": True, "schedule_spans": "lineage", "score_weights": "tail_average"}
    config = write_config(
        [
            sft("slow", **carried) | {"learning_rate": 1e-4},
            sft("fast", **carried),
            sft("lora", adapter={"method": "lora", "rank": 4}),
            {"name": "mix", "kind": "soup", "of": ["slow", "fast", "lora"]},
            {"name": "control", "kind": "unchanged"},
        ],
        evolution={"replace": 0.3},
        exploit={"after": 3},
    )
    first = run(config, tmp_path / "run", workers())
    rows = first.lineages[0].rounds
    assert [{e.status for e in row.entries} for row in rows[1:]] == [{"scored"}, {"scored"}]
    by_name = {e.competitor: e for e in rows[1].entries}
    assert by_name["control"].validation_loss == pytest.approx(rows[0].validation_loss, rel=1e-5)
    assert by_name["control"].improvement == pytest.approx(0, abs=1e-6)
    evolved = [e for e in rows[2].entries if e.origin]
    assert len(evolved) == 1
    assert "learning_rate" in evolved[0].origin
    assert rows[2].field == [f"{evolved[0].competitor} takes the place of slow: {evolved[0].origin}."]

    # A finished tournament is extended, one recipe leaves it, a clone of another enters, and it goes on.
    directory = RunDirectory(tmp_path / "run")
    extend(directory, 1)
    withdraw(directory, "lora")
    (tmp_path / "entry.yaml").write_text("{name: hot, like: fast, learning_rate: {each: [0.01, 0.03]}}")
    enter(directory, load_entries(tmp_path / "entry.yaml", current(directory.config, directory)))
    board = run(config, tmp_path / "run", workers())
    assert board.state == "finished"
    assert losses(board)[:3] == losses(first)
    (third,) = board.lineages[0].rounds[3:]
    assert {"hot-0.01", "hot-0.03"} <= {e.competitor for e in third.entries}
    assert "lora" not in {e.competitor for e in third.entries}
    assert [(e.competitor, e.reason) for e in third.entries if e.status != "scored"] == []
    assert "hot-0.01: " in " ".join(third.field) or "hot-0.01 was entered." in third.field
