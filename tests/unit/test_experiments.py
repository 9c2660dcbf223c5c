"""`make experiment`: every arm that needs no Ray on a tiny model, counted the same way, and what the table says."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import UserError
from orchestrator.config.loading import load_config
from tests.experiments import recipes
from tests.experiments.arms import arms, measured
from tests.experiments.cells import Cell
from tests.experiments.counting import Counter
from tests.experiments.picture import averaged, figure
from tests.experiments.results import Point, Result, keep, path_of, read_all, take
from tests.experiments.sizes import SIZES, Setting
from tests.experiments.table import chosen, interval, rows, table, written
from tests.experiments.trials import Ledger
from tests.tiny import tiny_model, tiny_rows, write_jsonl

TOKENS = 12_000


@pytest.fixture(scope="module")
def cell(tmp_path_factory: pytest.TempPathFactory) -> Cell:
    folder = tmp_path_factory.mktemp("cell")
    tiny_model(folder / "model")
    write_jsonl(folder / "rows.jsonl", tiny_rows(400))
    setting = Setting(
        "tiny", "Tiny", str(folder / "rows.jsonl"), TOKENS, base=str(folder / "model"), prompt="{instruction} \n",
        completion="{response}", held_out=60, max_tokens=32,
    )  # fmt: skip
    return Cell(setting, 3, folder / "cell").make()


@pytest.mark.parametrize(
    "name",
    [
        "alone-linear-2e-3",
        "wide-constant-8e-3-to-zero",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("random", "ours")),
    ],
)
def test_an_arm_trains_on_all_its_tokens_and_no_more(cell: Cell, tmp_path: Path, name: str):
    result = measured(arms(False)[name], name, cell, tmp_path, lambda: 0.0)
    assert 0.65 * TOKENS < result.tokens <= TOKENS  # whole steps, in each entry
    assert result.padded_tokens >= result.tokens
    assert result.curve[-1].tokens == pytest.approx(result.tokens, abs=0)
    assert result.curve[-1].test == pytest.approx(result.test, abs=1e-6)


def test_a_recipe_alone_is_scored_as_it_is_on_its_way(cell: Cell, tmp_path: Path):
    result = measured(arms(False)["alone-cosine-4e-3"], "a", cell, tmp_path, lambda: 0.0)
    assert result.best_checkpoint is not None
    assert result.best_checkpoint.validation == min(point.validation for point in result.curve)
    assert len(result.curve) == 4


def test_an_adapter_alone_is_scored_as_it_is_on_its_way(cell: Cell, tmp_path: Path):
    adapters = Cell(replace(cell.setting, adapters=True), cell.seed, cell.folder)
    result = measured(arms(True)["alone-linear-5e-4"], "a", adapters, tmp_path, lambda: 0.0)
    assert result.curve[-1].test == pytest.approx(result.test, abs=1e-5)
    assert (tmp_path / "submission" / "adapter_config.json").exists()


@pytest.mark.parametrize("name", [name for name in arms(False) if "ours" in name or name == "naive"])
def test_a_tournament_has_a_config_that_is_one(cell: Cell, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    heard = []
    monkeypatch.setattr("tests.experiments.arms._held", lambda file, run: heard.append(load_config(file)))
    with pytest.raises(AttributeError):  # nothing was run
        arms(False)[name].run(cell, tmp_path)
    assert heard[0].seed == cell.seed
    assert heard[0].data.max_tokens == cell.setting.max_tokens


def test_a_cut_leaves_so_many_rows_to_train_on(cell: Cell, tmp_path: Path):
    setting = replace(cell.setting, rows=50)
    one, other = (Cell(setting, seed, tmp_path / str(seed)).make().manifest for seed in (0, 1))
    assert one.counts["train"] == other.counts["train"] == 50
    assert one.fingerprint != other.fingerprint


def test_without_the_shared_folder_built_in_data_takes_its_place():
    setting = Setting("x", "X", "/nowhere/rows.jsonl", 1)
    assert (setting.usable.source, setting.usable.base) == ("builtin:quickstart", "builtin:tiny-bpe")


def test_every_pattern_of_a_size_names_an_arm():
    for size in SIZES.values():
        for pattern in size.arms:
            assert any(name.startswith(pattern.removesuffix("*")) for name in arms(size.settings[0].adapters)), pattern


def test_every_row_of_the_table_names_arms():
    for adapters in (False, True):
        assert {arm for row in rows(adapters) for arm in row.arms} == set(arms(adapters))


@pytest.mark.parametrize("adapters", [False, True])
def test_the_space_is_carried_to_the_batch(adapters: bool):
    values = {"rate": 4e-3, "batch": 4, "schedule": "linear", "warmup": 0.1, "beta2": 0.95}
    recipe = recipes.drawn(adapters, "a", values)
    assert recipe.learning_rate == pytest.approx(2e-3)
    assert recipe.betas[1] == pytest.approx(0.95**0.25)
    assert (recipe.adapter is not None) == adapters
    assert len(recipes.grid(adapters)) == len({one.name for one in recipes.grid(adapters)}) == 12


def test_a_ledger_adds_up_its_trials(tmp_path: Path):
    ledger = Ledger(tmp_path, 100)
    ledger.write("a", Counter(30, 40))
    ledger.write("a", Counter(10, 20), before=(30, 40))
    ledger.write("b", Counter(5, 5))
    assert (ledger.read("a"), ledger.spent(), ledger.is_spent) == ((40, 60), (45, 65), False)
    ledger.write("b", Counter(60, 90))
    assert ledger.is_spent


def result(arm: str, seed: int, test: float, **more: object) -> Result:
    point = Point(tokens=500, validation=test, test=test + 0.1)
    common = {"setting": "lamini", "fingerprint": "0", "tokens": 1000, "padded_tokens": 1500, "seconds": 1.0}
    common |= {"validation": test}
    return Result(arm=arm, seed=seed, test=test, best_checkpoint=point, curve=[point], **common, **more)


def test_the_table_pairs_seeds_and_says_what_was_chosen_afterwards():
    results = [result("ours", 0, 2.0), result("ours", 1, 2.2)]
    results += [result(f"grid-{batch}-0.002", seed, 2.3 + seed * 0.2 + batch) for batch in (1, 4) for seed in (0, 1)]
    grid = next(row for row in rows(False) if row.name.startswith("best of a grid"))
    assert [one.arm for one in chosen(grid, results)] == ["grid-1-0.002"] * 2
    lines = table(SIZES["full"].settings[:1], results, False)
    assert lines[2].startswith("| **the tournament** | 2.100 ± 1.271 | × 1.50 |")
    assert "3.400 ± 1.271 (+1.300 ± 0.000)" in lines[3]


def test_an_arm_that_lacks_a_seed_is_not_the_best_of_several():
    results = [result("grid-1-0.002", 0, 1.0), result("grid-4-0.002", 0, 2.0), result("grid-4-0.002", 1, 2.0)]
    grid = next(row for row in rows(False) if row.name.startswith("best of a grid"))
    assert {one.arm for one in chosen(grid, results)} == {"grid-4-0.002"}


def test_an_interval_is_students():
    values = list(np.random.default_rng(0).normal(size=3))
    assert interval(values) == pytest.approx(4.303 * np.std(values, ddof=1) / 3**0.5)
    assert interval([1.0]) is None


def test_the_docs_change_between_their_marks_only():
    content = "a\n<!-- slice: made by make experiment -->\nold\n<!-- slice: end -->\nb\n"
    new = written(content, "slice")
    assert new.startswith("a\n<!-- slice")
    assert new.endswith("<!-- slice: end -->\nb\n")
    assert "old" not in new
    assert written("nothing of it", "slice") == "nothing of it"


def test_the_picture_reads_all_seeds_on_one_scale():
    one = result("asha", 0, 2.0).model_copy(
        update={"curve": [Point(tokens=t, validation=0, test=v) for t, v in ((10, 4.0), (60, 3.0))]}
    )
    other = one.model_copy(update={"seed": 1, "curve": [Point(tokens=30, validation=0, test=2.0)]})
    tokens, losses = averaged([one, other], 60)
    assert (tokens[0], losses[0]) == (30, 3.0)
    assert (tokens[-1], losses[-1]) == (60, 2.5)
    drawn = figure([one, other, result("ours", 0, 1.9)], "lamini", 60, False)
    assert [trace["name"] for trace in drawn["data"]] == ["ASHA", "the tournament"]


def test_results_are_found_again(tmp_path: Path):
    kept = result("asha", 2, 2.5)
    kept.write(path_of(tmp_path, "lamini", 2, "asha"))
    assert read_all(tmp_path) == [kept]


def test_results_on_record_are_taken_for_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.experiments.results.RECORDED", tmp_path / "recorded")
    kept = result("asha", 2, math.inf)
    kept.write(path_of(tmp_path / "here", "lamini", 2, "asha"))
    keep("full", tmp_path / "here")
    take("full", tmp_path / "there")
    take("lora", tmp_path / "there")  # nothing of it is on record
    assert read_all(tmp_path / "there") == [kept]
    result("tpe", 2, 2.0).model_copy(update={"fingerprint": "1"}).write(path_of(tmp_path / "there", "lamini", 2, "tpe"))
    with pytest.raises(UserError, match="of different splits"):
        read_all(tmp_path / "there")
