"""A real tournament on real local Ray with tiny models, and what only Ray can show of a failure."""

import json
from pathlib import Path
from typing import Any

import pytest

from cluster.on_ray.ray_private import logs_folder
from cluster.on_ray.ray_workers import RayWorkers
from competitors.contract import Brief
from orchestrator.views.leaderboard import Leaderboard, LineageRow
from tests.tournaments import CREDENTIALS, PLANTED, losses, python, run, sft, times


def test_two_lineages_from_base_to_champion(
    write_config: Any, inputs: Path, tmp_path: Path, workers: RayWorkers, monkeypatch: pytest.MonkeyPatch
):
    for name in CREDENTIALS:  # as when the Ray was started
        monkeypatch.setenv(name, PLANTED)
    config = write_config(
        [
            sft("full", **{"continue": True}, schedule_spans="lineage", score_weights="tail_average"),
            python("returns_the_seed", "seed-again"),
        ],
        lineages=[{"name": name, "base": str(inputs / name)} for name in ("one", "two")],
        references=[
            {"name": "other <base>", "model": str(inputs / "two")},
            {"name": "published", "published": [3.0, 2.0, 1.0]},
        ],
    )
    board = run(config, tmp_path / "run", workers)
    assert board.state == "finished"
    assert [lineage.name for lineage in board.lineages] == ["one", "two"]
    for lineage in board.lineages:
        check_lineage(lineage)
    assert [r.name for r in board.references] == ["other <base>"]
    assert board.references[0].test["loss"] == pytest.approx(board.lineages[1].rounds[0].test["loss"], rel=1e-6)
    on_disk = json.loads((tmp_path / "run" / "leaderboard.json").read_text())
    assert on_disk == json.loads(board.to_text())
    check_briefs(tmp_path / "run")
    check_folders(tmp_path / "run", board)
    check_secrets(tmp_path)
    before = times(tmp_path / "run")
    assert losses(run(config, tmp_path / "run", workers)) == losses(board)
    assert times(tmp_path / "run") == before


def check_lineage(lineage: LineageRow) -> None:
    base, *rounds = lineage.rounds
    assert base.champion.is_base
    assert len(rounds) == 2
    assert rounds[0].validation_loss < base.validation_loss
    assert rounds[1].validation_loss <= rounds[0].validation_loss
    for row in rounds:
        assert {e.status for e in row.entries} == {"scored"}
        seed_again = next(e for e in row.entries if e.competitor == "seed-again")
        earlier = {f"{e.competitor}@{r.round}": e.validation_loss for r in rounds for e in r.entries}
        seed = str((base, *rounds)[row.round - 1].seed_next)
        expected = base.validation_loss if seed == "base" else earlier[seed]
        assert seed_again.validation_loss == pytest.approx(expected, rel=1e-5)
        assert all(e.train_tokens > 0 for e in row.entries if e.kind == "sft")


def check_secrets(folder: Path) -> None:
    """What the driver logs in with is nowhere: not in the run directory, nor in MLflow's store, nor in Ray's logs."""
    import ray

    files = [file for file in folder.rglob("*") if file.is_file()]
    assert any(file.name == "mlflow.db" for file in files)
    told = [file for file in files if file.name == "log.txt" and "'HOME': " in file.read_text()]
    assert sum("mlflow-artifacts" in file.parts for file in told) == len(told) / 2 == 4
    files += [file for file in logs_folder().rglob("*") if file.is_file()] if ray.is_initialized() else []
    assert not [file for file in files if PLANTED.encode() in file.read_bytes()]


def check_briefs(run_dir: Path) -> None:
    """No brief leads to held-out data, and every random seed is another."""
    briefs = [Brief.read(path) for path in run_dir.rglob("brief.json")]
    assert len(briefs) == 8
    for brief in briefs:
        assert "held_out" not in brief.model_dump_json()
    assert len({brief.random_seed for brief in briefs}) == 8
    assert {brief.progress for brief in briefs} == {(0.0, 0.5), (0.5, 1.0)}


def check_folders(run_dir: Path, board: Leaderboard) -> None:
    """Seeds and champions load with plain transformers; losers' optimizer states are gone."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    for lineage in board.lineages:
        for row in lineage.rounds[1:]:
            folder = run_dir / "lineages" / lineage.name / f"round-{row.round:03d}"
            assert AutoModelForCausalLM.from_pretrained(folder / "seed").num_parameters() > 0
            assert AutoTokenizer.from_pretrained(folder / "seed").eos_token == "</s>"
            assert (folder / "champion").is_dir() == row.dethroned
        last = lineage.rounds[-1].seed_next
        kept = {
            f"{path.parent.name}@{row.round}"
            for row in lineage.rounds
            for path in run_dir.glob(f"lineages/{lineage.name}/round-{row.round:03d}/*/continuation")
        }
        assert kept == {str(last)}
    held_out = run_dir / "data" / "held_out"
    assert {oct(path.stat().st_mode & 0o777) for path in held_out.iterdir()} == {"0o600"}


@pytest.mark.slow
def test_the_same_seed_in_another_folder_gives_the_same_weights(write_config: Any, tmp_path: Path, workers: RayWorkers):
    config = write_config([sft("lora", adapter={"method": "lora", "rank": 4}), sft("full", **{"continue": True})])
    first, again = (run(config, tmp_path / name, workers) for name in ("run", "again"))
    assert losses(again) == losses(first)


def test_a_process_that_is_killed_is_tried_again_and_the_round_goes_on(
    write_config: Any, tmp_path: Path, workers: RayWorkers
):
    config = write_config(
        [python("is_killed"), python("is_killed_once"), python("hangs"), python("returns_the_seed")],
        rounds=1,
        limits={"silence_minutes": 0.1, "startup_minutes": 2},
        evaluation={"samples": 0},
    )
    found = {e.competitor: e for e in run(config, tmp_path / "run", workers).lineages[0].rounds[1].entries}
    assert {name: entry.status for name, entry in found.items()} == {
        "is-killed": "forfeit",
        "is-killed-once": "scored",
        "hangs": "forfeit",
        "returns-the-seed": "scored",
    }
    assert "SIGKILL" in found["is-killed"].reason
    assert "(3 times)" in found["is-killed"].reason
    log = (tmp_path / "run" / str(found["is-killed"].log)).read_text()
    assert log.count("last words of its native code\n") == 3
    assert log.count("SIGKILL") == log.count("trying again") + 1 == 3
    assert found["hangs"].reason == "had not reported for 0.1 minutes, and left no valid model"
