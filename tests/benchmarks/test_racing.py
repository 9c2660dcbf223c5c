"""What racing saves, and whether what it stopped could have won: one round of many recipes with it and without."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from orchestrator.config.loading import load_config
from orchestrator.driver import run_tournament
from orchestrator.record.run_directory import RunDirectory
from orchestrator.views.leaderboard import EntryRow, build

RATES = [2.5e-4, 5e-4, 1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2, 3.2e-2]


def entries_of(tmp_path: Path, name: str, seed: int, **keys: Any) -> list[EntryRow]:
    """The entries of a round, best first."""
    raw = {
        "name": name,
        "seed": seed,
        "data": {"source": "builtin:quickstart", "prompt": "{instruction}\n", "completion": "{response}"}
        | {"max_tokens": 96, "validation": 300, "test": 50},
        "lineages": [{"name": "tiny-bpe", "base": "builtin:tiny-bpe"}],
        "rounds": 1,
        "competitors": [
            {"name": "full", "kind": "sft", "schedule": "cosine", "learning_rate": {"each": RATES}, "checkpoints": 0}
        ],
        "evaluation": {"samples": 0},
    } | keys
    config_file = tmp_path / f"{name}-{seed}.yaml"
    config_file.write_text(yaml.safe_dump(raw))
    config = load_config(config_file)
    run = RunDirectory(tmp_path / f"{name}-{seed}")
    board = build(run_tournament(config, config_file, run), "finished")
    return board.lineages[0].rounds[1].entries


@pytest.mark.parametrize(("seed", "tokens"), [(1, 40_000), (2, 40_000), (1, 160_000)])
def test_what_racing_saves_and_whom_it_stops(tmp_path: Path, seed: int, tokens: int):
    budget = {"tokens": tokens}
    plain = entries_of(tmp_path, "plain", seed, budget=budget)
    raced = entries_of(tmp_path, "raced", seed, budget=budget, racing={"at": [0.25, 0.5], "keep": 0.5, "rows": 100})
    stopped = [entry.competitor for entry in raced if entry.status == "forfeit"]
    assert all("stopped by racing" in entry.reason for entry in raced if entry.status == "forfeit")
    place = {entry.competitor: number for number, entry in enumerate(plain, start=1)}
    trained = sum(e.train_tokens for e in raced) / sum(e.train_tokens for e in plain)
    seconds = sum(e.wall_seconds for e in raced) / sum(e.wall_seconds for e in plain)
    print(
        f"\nseed {seed}, {tokens} tokens: {len(stopped)} of {len(plain)} stopped,"
        f" tokens x {trained:.2f}, worker seconds x {seconds:.2f}"
    )
    print("places, without racing, of those it stopped:", sorted(place[name] for name in stopped))
    print(f"winner with racing {raced[0].competitor}, without {plain[0].competitor}")
    assert stopped
    assert trained < 1
