"""Everything that can compete, in one tournament: configs/heterogeneous.yaml at tiny size; and a race."""

from pathlib import Path
from typing import Any

import pytest

from cluster.on_ray.ray_workers import RayWorkers
from competitors.command import sandbox
from competitors.contract import Submission
from competitors.soup.blend import Blend
from orchestrator.config.loading import load_config
from orchestrator.driver import run_tournament
from orchestrator.record.run_directory import RunDirectory
from orchestrator.views.leaderboard import build
from tests.tournaments import python, run

CONFIG = Path(__file__).parents[2] / "configs" / "heterogeneous.yaml"


@pytest.mark.skipif(sandbox.trouble() is not None, reason=f"no sandbox here: {sandbox.trouble()}")
@pytest.mark.slow  # in process: tests/unit/orchestrator/test_real_kinds.py
def test_every_kind_is_scored(inputs: Path, tmp_path: Path, ray_address: str, workers: RayWorkers):
    data = {"source": str(inputs / "rows.jsonl"), "prompt": "{instruction} \\n", "completion": "{response}"}
    sizes = {"max_tokens": 32, "validation": 120, "test": 60}
    changes = [
        *(f"data.{key}={value!r}" for key, value in data.items()),
        *(f"data.{key}={value}" for key, value in sizes.items()),
        f"lineages=[{{name: one, base: {inputs / 'one'}}}]",
        "budget={tokens: 3000}",
        "rounds=1",
        "evaluation={samples: 0}",
        "competitors.full-tail.learning_rate=0.02",
        "competitors.search.slice_rows=20",
        "competitors.search.trials=2",
        f"cluster.address={ray_address}",
    ]
    config = load_config(CONFIG, changes)
    assert len({recipe.kind for recipe in config.competitors}) == 5
    board = build(run_tournament(config, CONFIG, RunDirectory(tmp_path / "run"), workers=workers), "finished")
    base, row = board.lineages[0].rounds
    # A greedy soup may keep one model, of which it is a copy then.
    lost = [(e.competitor, e.reason) for e in row.entries if e.status != "scored"]
    assert [(name, why) for name, why in lost if name != "soup" or not why.startswith("is a copy of")] == []
    assert len(row.entries) == len(config.competitors)
    assert row.validation_loss < base.validation_loss

    # The gang spent one budget together and left a whole model; the soup blended what was scored by kept rows.
    folder = tmp_path / "run" / "lineages" / "one" / "round-001"
    gang = Submission.read(folder / "full-zero2" / "submission.json")
    assert (gang.form, gang.has_continuation) == ("full", True)
    assert 0.8 * 3000 < gang.train_tokens <= 3000
    soup = Blend.read(folder / "soup" / "soup.json")
    trained = {f"{recipe.name}@1" for recipe in config.competitors if recipe.trains}
    assert set(soup.slice_losses) == trained
    assert set(soup.blended) <= trained
    assert (tmp_path / "run" / "data" / "slice.parquet").exists()


@pytest.mark.slow
def test_a_race_stops_the_worst_whether_it_listens_or_not(write_config: Any, tmp_path: Path, workers: RayWorkers):
    config = write_config(
        [python("races_well"), python("races_badly"), python("races_badly_and_deaf")],
        rounds=1,
        racing={"at": [0.5], "keep": 0.3, "rows": 30},
    )
    entries = {e.competitor: e for e in run(config, tmp_path / "run", workers).lineages[0].rounds[1].entries}
    assert entries["races-well"].status == "scored"
    for name in ("races-badly", "races-badly-and-deaf"):
        assert entries[name].status == "forfeit"
        assert entries[name].reason.startswith("stopped by racing at 50% of its budget: ")
        assert "on 30 validation rows, place " in entries[name].reason
