"""The brief on disk: its paths move with the run directory."""

import json
import shutil
from pathlib import Path

from cluster.resources import Resources
from competitors.contract import Allowance, Brief, Ingredient


def whole_brief(run: Path, seed: Path) -> Brief:
    """A brief with every path that one can have."""
    entry = run / "lineages/l/round-001/a"
    one = Ingredient(label="b@1", folder=run / "b", form="full", seed_sha256="0", continuation=run / "b-continuation")
    return Brief(
        tournament="t", lineage="l", round=1, competitor="a", seed_model=seed, seed_sha256="0",
        seed_continuation=run / "seed-continuation", train_data=run / "data/train.parquet", max_tokens=64,
        budget=Allowance(steps=10), progress=(0.0, 0.5), output_dir=entry / "submission", random_seed=7,
        resources=Resources(gpus=0), ingredients=[one, one.model_copy(update={"continuation": None})],
        slice_data=run / "data/slice.parquet", attempt=2,
    )  # fmt: skip


def test_paths_below_the_root_move_with_it_and_others_stay(tmp_path: Path):
    run, elsewhere = tmp_path / "run", tmp_path / "hub" / "seed"
    brief = whole_brief(run, elsewhere)
    brief.write(run / "brief.json", root=run)
    told = json.loads((run / "brief.json").read_text())
    assert told["train_data"] == "data/train.parquet"
    assert told["ingredients"][0]["folder"] == "b"
    assert told["seed_model"] == str(elsewhere)
    assert Brief.read(run / "brief.json", root=run) == brief
    moved = tmp_path / "moved"
    shutil.move(run, moved)
    assert Brief.read(moved / "brief.json", root=moved) == whole_brief(moved, elsewhere)


def test_without_a_root_paths_are_absolute(tmp_path: Path):
    brief = whole_brief(tmp_path / "run", tmp_path / "seed").write(tmp_path / "brief.json")
    assert json.loads((tmp_path / "brief.json").read_text())["output_dir"] == str(brief.output_dir)
    assert Brief.read(tmp_path / "brief.json") == brief


def test_a_first_try_need_not_say_so(tmp_path: Path):
    told = whole_brief(tmp_path, tmp_path).model_dump(exclude={"attempt", "slice_data", "ingredients"})
    assert Brief.model_validate(told).attempt == 1
