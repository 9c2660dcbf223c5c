"""Real tournaments on real local Ray with tiny models."""

import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from cluster.ray_workers import Pool
from competitors.contract import Brief
from orchestrator.config import load_config
from orchestrator.driver import run_tournament
from orchestrator.field.entering import load_entries
from orchestrator.field.field import enter, extend, withdraw
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.verdict import Verdict
from orchestrator.views.leaderboard import Leaderboard, LineageRow
from orchestrator.views.live import Board
from tests.integration.conftest import python, sft


def run(config_file: Path, run_dir: Path, pool: Pool | None = None) -> Leaderboard:
    config = load_config(config_file)
    with (run_dir.parent / f"{run_dir.name}.log").open("a") as log:
        board = Board(Console(file=log), config.rounds)
        return run_tournament(config, config_file, RunDirectory(run_dir), None, board, pool)


def losses(board: Leaderboard) -> list[Any]:
    """Everything that must repeat with the seed: winners, champions, losses, hashes."""
    return [
        (
            *(r.round, r.champion, r.winner, r.seed_next, r.validation_loss, r.test_loss),
            # an adapter's config names the folder of its seed, so its hash changes with the run directory
            *(
                (e.competitor, e.validation_loss, e.submission_sha256 if e.competitor != "lora" else "")
                for e in r.entries
            ),
        )
        for lineage in board.lineages
        for r in lineage.rounds
    ]


def test_two_lineages_from_base_to_champion(write_config: Any, inputs: Path, tmp_path: Path, pool: Pool):
    config = write_config(
        [
            sft("lora", adapter={"method": "lora", "rank": 4}),
            sft("full", **{"continue": True}, schedule_spans="lineage", score_weights="tail_average"),
            python("returns_the_seed", "seed-again"),
        ],
        lineages=[{"name": name, "base": str(inputs / name)} for name in ("one", "two")],
        references=[
            {"name": "other <base>", "model": str(inputs / "two")},
            {"name": "published", "published": [3.0, 2.0, 1.0]},
        ],
    )
    board = run(config, tmp_path / "run", pool)
    assert board.state == "finished"
    assert [lineage.name for lineage in board.lineages] == ["one", "two"]
    for lineage in board.lineages:
        check_lineage(lineage)
    assert [r.name for r in board.references] == ["other <base>"]
    assert board.references[0].test_loss == pytest.approx(board.lineages[1].rounds[0].test_loss, rel=1e-6)
    on_disk = json.loads((tmp_path / "run" / "leaderboard.json").read_text())
    assert on_disk == json.loads(board.model_dump_json())
    check_briefs(tmp_path / "run")
    check_folders(tmp_path / "run", board)
    before = snapshot(tmp_path / "run")
    assert losses(run(config, tmp_path / "run", pool)) == losses(board)
    assert snapshot(tmp_path / "run") == before

    # The same seed in another folder: the same champions, the same losses, the same weights.
    again = run(config, tmp_path / "again", pool)
    assert losses(again) == losses(board)


def check_lineage(lineage: LineageRow) -> None:
    base, *rounds = lineage.rounds
    assert base.champion == "base"
    assert len(rounds) == 2
    assert rounds[0].validation_loss < base.validation_loss
    assert rounds[1].validation_loss <= rounds[0].validation_loss
    for row in rounds:
        assert {e.status for e in row.entries} == {"scored"}
        seed_again = next(e for e in row.entries if e.competitor == "seed-again")
        assert (
            seed_again.validation_loss
            == pytest.approx((base if row.round == 1 else rounds[0]).validation_loss, rel=1e-5)
            or rounds[0].seed_next != rounds[0].champion
        )
        assert all(e.train_tokens > 0 for e in row.entries if e.kind == "sft")


def check_briefs(run_dir: Path) -> None:
    """No brief leads to held-out data, and every random seed is another."""
    briefs = [Brief.read(path) for path in run_dir.rglob("brief.json")]
    assert len(briefs) == 12
    for brief in briefs:
        assert "held_out" not in brief.model_dump_json()
    assert len({brief.random_seed for brief in briefs}) == 12
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
            kept = {path.parent.name for path in folder.glob("*/continuation")}
            assert kept <= {row.winner}
    held_out = run_dir / "data" / "held_out"
    assert {oct(path.stat().st_mode & 0o777) for path in held_out.iterdir()} == {"0o600"}


def snapshot(folder: Path) -> dict[str, int]:
    """Modification time of everything, to see that nothing was touched."""
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file() and p.name not in (".lock", "mlflow.json")
    }


def test_every_failure_forfeits_with_its_reason_and_the_round_goes_on(write_config: Any, tmp_path: Path, pool: Pool):
    config = write_config(
        [
            sft("good"),
            python("raises"),
            python("runs_out_of_memory"),
            python("is_killed"),
            python("hangs"),
            python("hangs_with_a_checkpoint"),
            python("writes_nothing"),
            python("writes_half"),
            python("writes_nan"),
        ],
        rounds=1,
        limits={"silence_minutes": 0.1, "startup_minutes": 2},
    )
    board = run(config, tmp_path / "run", pool)
    found = {e.competitor: e for e in board.lineages[0].rounds[1].entries}
    assert {name: entry.status for name, entry in found.items()} == {
        "good": "scored",
        "hangs-with-a-checkpoint": "scored",
        "raises": "forfeit",
        "runs-out-of-memory": "forfeit",
        "is-killed": "forfeit",
        "hangs": "forfeit",
        "writes-nothing": "forfeit",
        "writes-half": "forfeit",
        "writes-nan": "rejected",
    }
    reasons = {name: entry.reason for name, entry in found.items()}
    assert reasons["raises"] == "raised RuntimeError: a bug in my recipe"
    assert reasons["runs-out-of-memory"] == "ran out of memory"
    assert reasons["is-killed"].startswith("its process died")
    assert reasons["hangs"] == "had not reported for 0.1 minutes, and left no valid model"
    assert reasons["hangs-with-a-checkpoint"] == "had not reported for 0.1 minutes"
    assert reasons["writes-nothing"] == "used its budget, and left no valid model"
    assert reasons["writes-half"] == "used its budget, and left no valid model"
    assert "not finite" in reasons["writes-nan"]
    assert board.lineages[0].rounds[1].winner == "good"


def test_when_all_forfeit_the_incumbent_stays(write_config: Any, tmp_path: Path, pool: Pool):
    board = run(write_config([python("raises"), python("writes_nothing")]), tmp_path / "run", pool)
    for row in board.lineages[0].rounds:
        assert (row.champion, row.seed_next, row.winner, row.dethroned) == ("base", "base", None, False)
    assert len(board.lineages[0].rounds) == 3


def test_patience_ends_a_lineage_early(write_config: Any, tmp_path: Path, pool: Pool):
    config = write_config([python("returns_the_seed")], rounds=5, selection={"patience": 2, "resamples": 300})
    board = run(config, tmp_path / "run", pool)
    assert board.state == "finished"
    assert len(board.lineages[0].rounds) == 3
    assert Verdict.read(tmp_path / "run/lineages/one/round-002/verdict.json").ends_lineage


def test_the_field_changes_by_evolution_by_hand_and_by_exploiting(write_config: Any, tmp_path: Path, pool: Pool):
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
    first = run(config, tmp_path / "run", pool)
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
    enter(directory, load_entries(tmp_path / "entry.yaml", directory))
    board = run(config, tmp_path / "run", pool)
    assert board.state == "finished"
    assert losses(board)[:3] == losses(first)
    (third,) = board.lineages[0].rounds[3:]
    assert {"hot-0.01", "hot-0.03"} <= {e.competitor for e in third.entries}
    assert "lora" not in {e.competitor for e in third.entries}
    assert [(e.competitor, e.reason) for e in third.entries if e.status != "scored"] == []
    assert "hot-0.01: " in " ".join(third.field) or "hot-0.01 was entered." in third.field

    # Its own config holds the changes and repeats the whole of it elsewhere.
    again = run(tmp_path / "run" / "tournament.yaml", tmp_path / "again", pool)
    assert losses(again) == losses(board)
