"""`make experiment`: every arm that needs no Ray on a tiny model, counted the same way, and what the table says."""

import argparse
import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from cluster.errors import UserError
from orchestrator.config.loading import load_config
from tests.experiments import recipes, results, run, wall
from tests.experiments import table as table_of
from tests.experiments.arms import arms, measured
from tests.experiments.cells import Cell
from tests.experiments.counting import Counter
from tests.experiments.picture import averaged, figure
from tests.experiments.results import Point, Result, done, keep, path_of
from tests.experiments.sizes import SIZES, Setting
from tests.experiments.table import Column, against_the_grid, chosen, columns, interval, rows, table, text, written
from tests.experiments.trials import Ledger
from tests.tiny import tiny_model, tiny_rows, write_jsonl

TOKENS = 12_000
LAMINI = SIZES["full"].settings[0]
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.fixture(autouse=True)
def _nothing_was_run_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(results, "RUNS", tmp_path / "runs")


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
    monkeypatch.setattr("tests.experiments.arms._held", lambda file, run, room: heard.append(load_config(file)))
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
    common |= {"validation": test, "run_with": LAMINI.run_with, "finished": NOON}
    return Result(arm=arm, seed=seed, test=test, best_checkpoint=point, curve=[point], **common | more)


def test_the_table_pairs_seeds_and_says_what_was_chosen_afterwards():
    results = [result("ours", 0, 2.0), result("ours", 1, 2.2)]
    results += [result(f"grid-{batch}-0.002", seed, 2.3 + seed * 0.2 + batch) for batch in (1, 4) for seed in (0, 1)]
    grid = next(row for row in rows(False) if row.name.startswith("best of a grid"))
    assert [one.arm for one in chosen(grid, results)] == ["grid-1-0.002"] * 2
    lines = table([Column(replace(LAMINI, total_tokens=1000), results)], False)
    assert lines[2].startswith("| **the tournament** | 2.100 ± 1.271 | 1.00 | 1.50 |")
    assert "3.400 ± 1.271 (+1.300 ± 0.000) | 2.00 |" in lines[3]  # two of the grid's recipes are run


@pytest.mark.parametrize(
    ("losses", "said"),
    [
        ((2.51, 2.50, 2.52), "(grid-1-0.002, of 1 that are run) 0.510 ± 0.025 below it"),
        ((1.51, 1.50, 1.52), "0.490 ± 0.025 above it"),
        ((1.91, 2.00, 2.12), "0.010 ± 0.262 below it, which 3 seeds cannot tell from 0"),
        ((2.51,), "0.510 below it, which one seed cannot tell"),
    ],
)
def test_what_is_said_of_the_grid_follows_from_the_figures(losses: tuple[float, ...], said: str):
    ours = [result("ours", seed, 2.0) for seed in range(3)]
    grid = [result("grid-1-0.002", seed, loss) for seed, loss in enumerate(losses)]
    assert against_the_grid([Column(LAMINI, ours)], False) == ""
    words = against_the_grid([Column(LAMINI, [*ours, *grid])], False)
    assert f"{said}." in words
    assert "twelve budgets" in words


def test_an_arm_that_lacks_a_seed_is_not_the_best_of_several():
    results = [result("grid-1-0.002", 0, 1.0), result("grid-4-0.002", 0, 2.0), result("grid-4-0.002", 1, 2.0)]
    grid = next(row for row in rows(False) if row.name.startswith("best of a grid"))
    assert {one.arm for one in chosen(grid, results)} == {"grid-4-0.002"}


def test_an_interval_is_students():
    values = list(np.random.default_rng(0).normal(size=3))
    assert interval(values) == pytest.approx(4.303 * np.std(values, ddof=1) / 3**0.5)
    assert interval([1.0]) is None


def test_the_docs_change_between_their_marks_only():
    content = "a\n<!-- lora: made by make experiment -->\nold\n<!-- lora: end -->\nb\n"
    new = written(content, "lora")
    assert new.startswith("a\n<!-- lora")
    assert new.endswith("<!-- lora: end -->\nb\n")
    assert "old" not in new
    assert written("nothing of it", "lora") == "nothing of it"


def test_the_picture_reads_all_seeds_on_one_scale():
    one = result("asha", 0, 2.0).model_copy(
        update={"curve": [Point(tokens=t, validation=0, test=v) for t, v in ((10, 4.0), (60, 3.0))]}
    )
    other = one.model_copy(update={"seed": 1, "curve": [Point(tokens=30, validation=0, test=2.0)]})
    tokens, losses = averaged([one, other], 60)
    assert (tokens[0], losses[0]) == (30, 3.0)
    assert (tokens[-1], losses[-1]) == (60, 2.5)
    drawn = figure(Column(replace(LAMINI, total_tokens=60), [one, other, result("ours", 0, 1.9)]))
    assert [trace["name"] for trace in drawn["data"]] == ["ASHA", "the tournament"]


def test_the_picture_has_every_arm_of_one_machine_and_no_label_on_another():
    elsewhere = ("wide-", "longer-", "grid-", "ours-low", "ours-one-line")
    names = [name for name in arms(False) if not name.startswith(elsewhere)]
    alike = [result(name, 0, 2.0 + number / 1000) for number, name in enumerate([*names, "grid-4-0.004"])]
    drawn = figure(Column(LAMINI, alike))
    assert len(drawn["data"]) == len(names) + 1
    layout = drawn["layout"]
    low, high = layout["yaxis"]["range"]
    heights = sorted(one["y"] for one in layout["annotations"])
    pixels = (layout["height"] - layout["margin"]["t"] - layout["margin"]["b"]) / (high - low)
    assert min(np.diff(heights)) * pixels > 18
    assert low < heights[0] < heights[-1] < high


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty record and an empty `runs`, and docs that have a table of each size."""
    monkeypatch.setattr(results, "RECORDED", tmp_path / "recorded")
    monkeypatch.setattr(table_of, "DOCS", tmp_path / "docs.md")
    marks = [f"<!-- {size}: made by make experiment -->\nold\n<!-- {size}: end -->\n" for size in SIZES]
    (tmp_path / "docs.md").write_text("".join(marks))
    return tmp_path


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if ../shared were there."""
    monkeypatch.setattr(Setting, "usable", property(lambda self: self))


def write(one: Result, size: str = "full", setting: Setting = LAMINI) -> Result:
    return one.write(path_of(size, setting, one.seed, one.arm))


def fresh_clone(folders: Path) -> None:
    (folders / "runs").rename(folders / f"gone-{len(list(folders.iterdir()))}")


def left(again: bool = False) -> list[str]:
    """What `run` would run of LaMini's ASHA and TPE with seed 2."""
    asked = argparse.Namespace(size="full", only="lamini/[at][sp][he]*", side_by_side=1, keep=False, again=again)
    return [job.arm for job in run.jobs(asked, 2)]


def make_table(monkeypatch: pytest.MonkeyPatch, size: str) -> None:
    monkeypatch.setattr("sys.argv", ["table", size])
    table_of.main()


@pytest.mark.usefixtures("real")
def test_a_result_on_record_is_never_lost_and_not_run_again(folders: Path, monkeypatch: pytest.MonkeyPatch):
    assert left() == ["asha", "tpe"]
    kept = write(result("asha", 2, math.inf))
    make_table(monkeypatch, "full")
    fresh_clone(folders)
    assert done("full") == [kept]
    make_table(monkeypatch, "full")  # of what is on record alone
    assert done("full") == [kept]
    assert "| ASHA |" in (folders / "docs.md").read_text()
    write(result("tpe", 2, 2.0))
    make_table(monkeypatch, "full")  # of a part that was run alone
    assert left() == []
    assert left(again=True) == ["asha", "tpe"]
    fresh_clone(folders)
    assert {one.arm for one in done("full")} == {"asha", "tpe"}


@pytest.mark.parametrize("hours", [-1, 0, 1])
def test_of_two_results_of_a_run_the_newer_counts(folders: Path, hours: int):
    old = write(result("asha", 2, 2.5))
    keep("full")
    new = write(result("asha", 2, 2.4, finished=NOON + timedelta(hours=hours)))
    assert done("full") == [old if hours < 0 else new]
    keep("full")
    fresh_clone(folders)
    assert done("full") == [old if hours < 0 else new]


@pytest.mark.usefixtures("real")
def test_a_result_of_other_settings_is_another_run(folders: Path, monkeypatch: pytest.MonkeyPatch):
    old = write(result("asha", 2, 2.5))
    keep("full")
    twice = replace(LAMINI, total_tokens=2 * LAMINI.total_tokens)
    monkeypatch.setitem(SIZES, "full", replace(SIZES["full"], settings=(twice,)))
    assert left() == ["asha", "tpe"]
    with pytest.raises(UserError, match="full: nothing is done of it"):
        text("full")
    new = write(result("asha", 2, 2.3, run_with=twice.run_with), setting=twice)
    assert left() == ["tpe"]
    assert "2.500" not in text("full")
    keep("full")
    assert sorted(done("full"), key=lambda one: one.test) == [new, old]


def test_what_was_run_on_built_in_data_is_not_said_to_be_of_the_real(folders: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Setting, "usable", property(lambda self: self.on_built_in))
    write(result("asha", 2, 2.5))
    keep("full")
    assert left() == ["asha", "tpe"]  # the record is of the real data, which are not here
    write(result("asha", 2, 1.5, run_with=LAMINI.usable.run_with), setting=LAMINI.usable)
    assert left() == ["tpe"]
    assert "| arm | LaMini | LaMini (built-in data in its place) |" in text("full")
    assert "| ASHA | 2.500 | 1.500 |" in text("full")


def test_the_small_table_is_run_on_each_machine_anew(folders: Path, monkeypatch: pytest.MonkeyPatch):
    small = SIZES["small"].settings[0]
    write(result("asha", 2, 2.5, run_with=small.run_with), "small", small)
    make_table(monkeypatch, "small")
    content = (folders / "docs.md").read_text()
    assert "| ASHA | 2.500 |" in content
    fresh_clone(folders)
    assert done("small") == []
    with pytest.raises(SystemExit, match="small: nothing is done of it"):
        make_table(monkeypatch, "small")
    assert (folders / "docs.md").read_text() == content


def test_results_on_other_rows_are_refused(folders: Path):
    write(result("asha", 2, 2.5))
    write(result("tpe", 2, 2.0, fingerprint="1"))
    with pytest.raises(UserError, match="lamini seed 2: its results"):
        done("full")


def test_the_record_is_of_the_sizes_as_they_are(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(results, "RUNS", tmp_path)
    for name, size in SIZES.items():
        there = done(name)
        assert bool(there) == size.on_record
        assert sum(len(column.results) for column in columns(size.settings, there)) == len(there)


def test_what_a_setting_is_run_with_is_the_same_in_every_checkout():
    assert LAMINI.run_with["source"] == "data/lamini/train.jsonl"
    assert LAMINI.run_with["base"] == "models/stories260k"
    assert LAMINI.on_built_in.run_with["source"] == "builtin:quickstart"


def test_a_gang_waits_for_its_longest_row_and_a_round_for_its_last_entry():
    lengths = np.array([10, 10, 10, 30])
    assert wall.wait(lengths, 4, 4) == pytest.approx(4 * 30 / 60)
    assert wall.wait(lengths, 4, 1) == pytest.approx(4 * 30 / 60)  # one pass: another costs more than its padding
    assert wall.wait(lengths, 4, 1, a_pass=60) == pytest.approx(3)
    race = "a@2: round 1: a 3.1 (0.1 at batch 1, 1,000 tokens), b forfeit (0.1 at batch 1, 2,000 tokens); round 2: "
    line = "a 2.9 (0.1 at batch 4 on 4 workers, 8,000 tokens)"
    assert wall.of_a_tournament(race + line, lambda rows, workers: 1.0) == 2000 + 8000 / 4
    lines = ", ".join(["b 3 (0.1 at batch 4 on 2 workers, 8,000 tokens)", *["c 3 (0.1 at batch 4, 1,000 tokens)"] * 5])
    assert wall.of_a_tournament(race + lines, lambda rows, workers: 1.0) == 2000 + 8000 / 2
    late = ", ".join([*["c 3 (0.1 at batch 4, 1,000 tokens)"] * 3, "b 3 (0.1 at batch 4 on 2 workers, 8,000 tokens)"])
    assert wall.of_a_tournament(race + late, lambda rows, workers: 1.0) == 2000 + 1000 + 4000
