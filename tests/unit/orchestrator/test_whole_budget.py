"""A whole budget with real training, without Ray: a race, and one line, killed in its middle and gone on with."""

import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from cluster.in_process import InProcessWorkers
from evaluation.evaluator import ScoringJob, score_model
from evaluation.scorecard import SplitScore
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.records import ModelFolder
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import LineageSnapshot, SnapshotReader
from tests.tournaments import losses, make_inputs, run, sft, write_tournament

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_inputs(tmp_path_factory.mktemp("inputs"))


def workers() -> InProcessWorkers:
    """One call at a time: they load models."""
    return InProcessWorkers(trainers=1, evaluators=0)


def lineage(run_dir: Path) -> LineageSnapshot:
    return SnapshotReader(RunDirectory(run_dir)).read().lineages[0]


def adapters(inputs: Path, folder: Path) -> Path:
    """Two rounds of a line of one of two adapters, on a base in bfloat16."""
    base = folder / "narrow"
    shutil.copytree(inputs / "one", base)
    AutoModelForCausalLM.from_pretrained(base, dtype="bfloat16").save_pretrained(base)
    lora = {"method": "lora", "rank": 4}
    field = [sft("lora", learning_rate=0.08, adapter=lora), sft("slow-lora", learning_rate=1e-4, adapter=lora)]
    budget = {"total_tokens": 4_000}
    rules = {"several_lines": False, "share": 0.05}
    samples = {"samples": 0}
    lineages = [{"name": "one", "base": str(base)}]
    changes: dict[str, Any] = {"budget": budget, "allocation": rules, "evaluation": samples, "lineages": lineages}
    return write_tournament(inputs, folder, field, rounds=3, **changes)


@pytest.mark.slow
def test_an_adapters_line_goes_on_with_its_adapter_and_after_a_kill(inputs: Path, tmp_path: Path):
    config = adapters(inputs, tmp_path)
    board = run(config, tmp_path / "run", workers())
    one = lineage(tmp_path / "run")
    assert [r.roster.phase for r in one.rounds] == ["race", "line", "line"]
    last = one.rounds[2].entries[0]
    assert last.brief is not None
    assert last.entry.continues == ModelRef(last.name, 2)
    # It stands on the base, not on a merged seed, and so do its forebears.
    assert {e.brief.seed_sha256 for r in one.rounds for e in r.entries if e.brief and e.entry.continues} == {
        one.rounds[0].entries[0].brief.seed_sha256  # type: ignore[union-attr]
    }
    assert "goes on with the seed's optimizer" in (last.folder / "progress.jsonl").read_text()
    assert (last.folder / "submission" / "adapter_config.json").is_file()
    assert one.verdicts[-1].seed_next == ModelRef(last.name, 3)
    assert 3_700 < board.lineages[0].tokens_spent <= 4_000

    # What was scored is what is handed out and what others start from, to the bit.
    for r in one.rounds:
        for name in ("seed", "champion"):
            if (r.folder / name).exists():
                handed_out = ModelFolder.read(r.folder / f"{name}.json").model
                card = one.scorecard_of(handed_out)
                assert card is not None
                assert handed_out.is_base == (card.merge is None)
                assert (
                    rescored(tmp_path / "run", r.folder / name, tmp_path / "narrow").figures == card.validation.figures
                )

    killed = tmp_path / "killed"
    kill_in_the_line(config, killed)
    assert losses(run(config, killed, workers())) == losses(board)
    again = lineage(killed).rounds[1].entries[0]
    assert again.brief is not None
    assert again.brief.attempt > 1, "it went on from a checkpoint"


def rescored(run_dir: Path, model: Path, base: Path) -> SplitScore:
    """The validation rows of a folder that is a full model."""
    run = RunDirectory(run_dir)
    config = run.config
    settings = {"max_tokens": config.data.max_tokens, "batch_tokens": config.evaluation.batch_tokens}
    job = ScoringJob(
        name="", model=model, tokenizer=base, held_out=run.held_out, out=run_dir.parent / "rescored", **settings
    )
    return score_model(job).validation


def kill_in_the_line(config: Path, run_dir: Path) -> None:
    """Run the tournament, and kill it with SIGKILL once its line's first round has saved something to go on from."""
    command = [sys.executable, "-m", "tests.driver_in_process", str(config), str(run_dir)]
    driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    deadline = time.monotonic() + 600
    while not list(run_dir.glob("lineages/one/round-002/*/scratch/resume/resume.json")):
        assert driver.poll() is None, driver.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    driver.kill()
    driver.communicate()


@pytest.mark.slow  # test_loop.py has it over workers that pretend
def test_short_data_ends_in_a_soup(inputs: Path, tmp_path: Path):
    field = [sft("full", learning_rate=0.02), sft("slow", learning_rate=1e-4)]
    changes = {"rounds": 3, "budget": {"total_tokens": 27_000}, "allocation": {"climb": False, "step_tokens": 100}}
    run(write_tournament(inputs, tmp_path, field, **changes), tmp_path / "run", workers())
    one = lineage(tmp_path / "run")
    assert [r.roster.phase for r in one.rounds] == ["race", "lines", "soup"]
    assert {entry.state for r in one.rounds for entry in r.entries} == {"scored"}
    best = min(e.scorecard.validation.loss for e in one.rounds[-1].entries if e.scorecard)
    assert one.verdicts[-1].seed_validation_loss == best
