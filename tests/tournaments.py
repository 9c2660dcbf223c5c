"""Small real tournaments: a config to vary, running it over any workers, and what must repeat with the seed."""

from pathlib import Path
from typing import Any

import yaml

from cluster.workers import Workers
from orchestrator.config.loading import load_config
from orchestrator.driver import run_tournament
from orchestrator.record.run_directory import RunDirectory
from orchestrator.views.leaderboard import Leaderboard, build
from tests.empty_store import give_store
from tests.tiny import tiny_model, tiny_rows, write_jsonl

PLANTED = "planted-3e1f"
CREDENTIALS = ("HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "WANDB_API_KEY")
"""With which Ray is started in tests and drivers are: nothing of it may be found anywhere."""


def make_inputs(folder: Path) -> Path:
    """Two tiny bases with different tokenizers, and rows."""
    tiny_model(folder / "one", seed=1)
    tiny_model(folder / "two", seed=2, bos=False, hidden=24)
    write_jsonl(folder / "rows.jsonl", tiny_rows(400))
    return folder


def write_tournament(inputs: Path, folder: Path, competitors: list[dict[str, Any]], **changes: Any) -> Path:
    """A config in `folder`: `changes` replace keys of a two-round tournament on one base."""
    config = {
        "name": "tiny",
        "seed": 3,
        "data": {
            "source": str(inputs / "rows.jsonl"),
            "prompt": "{instruction} \n",
            "completion": "{response}",
            "max_tokens": 32,
            "validation": 120,
            "test": 60,
        },
        "lineages": [{"name": "one", "base": str(inputs / "one")}],
        "rounds": 2,
        "budget": {"steps": 12},
        "competitors": competitors,
        "evaluation": {"samples": 1, "sample_tokens": 4},
    }
    give_store(folder)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(config | changes, sort_keys=False))
    return path


def run(config_file: Path, run_dir: Path, workers: Workers | None = None) -> Leaderboard:
    """Run a tournament to its end, or go on with it."""
    snapshot = run_tournament(load_config(config_file), config_file, RunDirectory(run_dir), workers=workers)
    return build(snapshot, "finished")


def sft(name: str, **settings: Any) -> dict[str, Any]:
    """An sft competitor's section."""
    return {"name": name, "kind": "sft", "learning_rate": 0.02, "batch_size": 8, **settings}


def python(function: str, name: str | None = None) -> dict[str, Any]:
    """A competitor from recipes.py."""
    return {"name": name or function.replace("_", "-"), "kind": "python", "entrypoint": f"tests.recipes:{function}"}


def losses(board: Leaderboard) -> list[Any]:
    """Everything that must repeat with the seed: winners, champions, losses, hashes."""
    return [
        (
            *(r.round, r.champion, r.winner, r.seed_next, r.validation_loss, r.test),
            *((e.competitor, e.validation_loss, e.submission_sha256) for e in r.entries),
        )
        for lineage in board.lineages
        for r in lineage.rounds
    ]


def times(folder: Path) -> dict[str, int]:
    """Modification time of everything, to see that nothing was touched."""
    return {
        str(p.relative_to(folder)): p.stat().st_mtime_ns
        for p in folder.rglob("*")
        if p.is_file() and p.name not in (".lock", "mlflow.json")
    }
