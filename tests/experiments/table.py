"""`python -m tests.experiments.table SIZE`: the table of a size, from what is done of it.

It also goes into docs/experiments.md where that has marks for the size.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from cluster.errors import UserError
from tests.experiments import recipes
from tests.experiments.results import Result, done, keep
from tests.experiments.sizes import SIZES, Setting

DOCS = Path(__file__).parents[2] / "docs" / "experiments.md"
OURS, GRID = "ours", "best of a grid of 12"
WIDE_OURS = "four workers: the tournament"
WIDE, LONGER = "four workers: best recipe alone", "four workers: the same in equal time"
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Student's t for a two-sided interval of 95 %, by the number of seeds."""

Loss = Callable[[Result], float]


@dataclass(frozen=True)
class Column:
    """A setting and what is done of it."""

    setting: Setting
    results: list[Result]


def columns(settings: Sequence[Setting], results: Sequence[Result]) -> list[Column]:
    """One for each setting of which anything is done; what was run on built-in data in its place is another column.

    Results that were run with other settings than those in sizes.py now are in none.
    """
    every = [one for setting in settings for one in (setting, setting.on_built_in)]
    found = [
        Column(one, [done for done in results if (done.setting, done.run_with) == (one.name, one.run_with)])
        for one in every
    ]
    return [one for one in found if one.results]


@dataclass(frozen=True)
class Row:
    """A row: which arm's result counts, what of it, and what that is in plain words."""

    name: str
    arms: tuple[str, ...]
    """Of several the best on average over the seeds counts, chosen when all is known."""
    words: str
    loss: Loss = lambda result: result.test


def at_best_checkpoint(result: Result) -> float:
    """Test loss where the validation loss was lowest."""
    return result.best_checkpoint.test if result.best_checkpoint else result.test


def rows(adapters: bool) -> list[Row]:
    """Every row there may be, in order."""
    field = recipes.field(adapters)
    own = tuple(f"alone-{one.name}" for one in field)
    zero = tuple(f"alone-{one.name}" + ("-to-zero" if one.schedule != "linear" else "") for one in field)
    wide, longer = (
        tuple(name.replace("alone-", f"{word}-") for name in dict.fromkeys((*own, *zero)))
        for word in ("wide", "longer")
    )
    found = [Row("**the tournament**", (OURS,), "Four recipes and one budget, by default settings.")]
    for one, by_own, to_zero in zip(field, own, zero, strict=True):
        found.append(Row(f"{one.name} alone", (by_own,), "One of its recipes with everything."))
        if to_zero != by_own:
            found.append(Row(f"{one.name} alone, to zero", (to_zero,), "The same, its rate linearly to zero."))
    return [
        *found,
        Row(
            "best recipe, best checkpoint",
            tuple(dict.fromkeys((*own, *zero))),
            "The best of the rows above, chosen afterwards, at its lowest validation loss. Knows which wins.",
            at_best_checkpoint,
        ),
        Row(
            GRID,
            tuple(one.name for one in recipes.grid(adapters)),
            "Each of twelve with everything, the best on test rows: knows the future, had twelve budgets.",
        ),
        Row("random search", ("random",), "Four recipes at random with a quarter each, the best kept."),
        Row("ASHA", ("asha",), "Ray Tune's, over random recipes until all is spent."),
        Row("TPE with ASHA", ("tpe",), "Optuna proposes, Ray Tune's ASHA stops."),
        Row("population-based training", ("pbt",), "Ray Tune's, a population of four."),
        Row("equal rounds", ("naive",), "The tournament as published: five rounds, all recipes the same in each."),
        Row(
            "without the race", ("ours-no-race",), "One of the four recipes, picked blindly; rates beyond it are tried."
        ),
        Row(
            "without the climb",
            ("ours-no-climb",),
            "No second heat after the race, and no rate is tried beyond the field's.",
        ),
        Row("a field of low rates", ("ours-low",), "The four recipes at a quarter of their rates."),
        Row("the same without the climb", ("ours-low-no-climb",), "No rate is tried beyond the field's."),
        Row("without the optimizer", ("ours-no-optimizer",), "Each round starts with a fresh optimizer."),
        Row("without several lines", ("ours-one-line",), "One line even where data is short."),
        Row(WIDE_OURS, ("wide-ours",), "Steps of four rows, one for each worker."),
        Row(WIDE, wide, "Data-parallel, batch × 4; the best, chosen afterwards."),
        Row(LONGER, longer, "The same with as many more tokens as the tournament takes more time."),
    ]


def chosen(row: Row, results: Sequence[Result]) -> list[Result]:
    """The results of one setting that the row speaks of, one a seed."""
    groups = [[one for one in results if one.arm == arm] for arm in row.arms]
    seeds = {one.seed for one in results if one.arm in row.arms}
    whole = [group for group in groups if group and {one.seed for one in group} == seeds]
    best = min(whole, key=lambda group: mean(row.loss(one) for one in group), default=[])
    return sorted(best, key=lambda one: one.seed)


def interval(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean over seeds; None for one seed."""
    return STUDENT[len(values)] * stdev(values) / sqrt(len(values)) if len(values) > 1 else None


def losses_cell(row: Row, results: Sequence[Result]) -> str:
    """Mean test loss over seeds with its interval, and how far that is above the tournament's on the same seeds."""
    own = chosen(row, results)
    if not own:
        return ""
    values = [row.loss(one) for one in own]
    ours = {one.seed: one.test for one in results if one.arm == OURS}
    behind = [row.loss(one) - ours[one.seed] for one in own if one.seed in ours]
    said = with_interval(values, "")
    return said if row.arms == (OURS,) or not behind else f"{said} ({with_interval(behind, '+')})"


def with_interval(values: Sequence[float], sign: str) -> str:
    """The mean over seeds, with its interval where there are several; `sign` is "+" for a difference."""
    half = interval(values)
    return f"{mean(values):{sign}.3f}" + ("" if half is None else f" ± {half:.3f}")


def spent_cell(row: Row, of: Sequence[Column]) -> str:
    """Budgets that all arms of the row trained on together, over data sets and seeds."""
    shares = []
    for column in of:
        arms = [one for one in column.results if one.arm in row.arms]
        for seed in sorted({one.seed for one in arms}):
            shares.append(sum(one.tokens for one in arms if one.seed == seed) / column.setting.total_tokens)
    low, high = (f"{share:.2f}" for share in (min(shares), max(shares)))
    return low if low == high else f"{low} to {high}"


def padded_cell(row: Row, column: Column) -> str:
    """Tokens with padding for each real one."""
    used = chosen(row, column.results)
    return f"{mean(one.padded_tokens / one.tokens for one in used):.2f}" if used else "–"


def table(of: Sequence[Column], adapters: bool) -> list[str]:
    """Lines of Markdown."""
    head = ["arm", *(one.setting.title for one in of), "budgets spent", "padded, on CPU", "in plain words"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows(adapters):
        if any(one.arm in row.arms for column in of for one in column.results):
            losses = [losses_cell(row, column.results) for column in of]
            padded = " / ".join(padded_cell(row, column) for column in of)
            lines.append(f"| {' | '.join([row.name, *losses, spent_cell(row, of), padded, row.words])} |")
    return lines


def against_the_grid(of: Sequence[Column], adapters: bool) -> str:
    """How the tournament stands to the best of the grid, as the figures have it; empty where no grid is run."""
    row, said = next(row for row in rows(adapters) if row.name == GRID), []
    for column in of:
        best, ours = chosen(row, column.results), {one.seed: one.test for one in column.results if one.arm == OURS}
        ahead = [one.test - ours[one.seed] for one in best if one.seed in ours]
        if not ahead:
            continue
        run = len({one.arm for one in column.results} & set(row.arms))
        lead, half = mean(ahead), interval(ahead)
        words = f"{abs(lead):.3f}{'' if half is None else f' ± {half:.3f}'} {'below' if lead > 0 else 'above'} it"
        if half is None or abs(lead) <= half:
            words += (
                ", which one seed cannot tell" if half is None else f", which {len(ahead)} seeds cannot tell from 0"
            )
        few = "" if run == len(row.arms) else f", of {run} that are run"
        said.append(f"on {column.setting.title} ({best[0].arm}{few}) {words}")
    if not said:
        return ""
    return (
        "The best of the grid is chosen on the test rows when all is over, and the grid has twelve budgets in the place"
        f" of one. With one the tournament ends, {'; '.join(said)}."
    )


def text(size: str) -> str:
    """The table of a size and what its figures are. UserError where nothing is done of it."""
    settings = SIZES[size].settings
    of, adapters = columns(settings, done(size)), settings[0].adapters
    if not of:
        raise UserError(f"{size}: nothing is done of it as sizes.py has it: python -m tests.experiments.run {size}")
    seeds = max(len({one.seed for one in column.results}) for column in of)
    over = "one seed" if seeds == 1 else f"mean of {seeds} seeds with a 95 % interval"
    tokens = "; ".join(f"{one.setting.title}: {one.setting.total_tokens:,}" for one in of)
    held = " or ".join(str(count) for count in sorted({one.setting.held_out for one in of}))
    return "\n".join(
        [
            f"Test loss in nats per completion token, {over}, and in brackets how far above the tournament, paired by"
            f" seed. A budget, in real training tokens: {tokens}. Budgets spent: by all arms of the row together, as"
            " counted, lowest to highest over data sets and seeds; steps are whole, and Ray Tune's trials end a little"
            f" late. {held} rows choose, {held} report. Padded: tokens with padding for each real one in the small"
            f" passes by length of a CPU{', a figure for each data set in their order' if len(of) > 1 else ''}.",
            "",
            *table(of, adapters),
            "",
            *([said, ""] if (said := against_the_grid(of, adapters)) else []),
        ]
    )


def written(content: str, size: str) -> str:
    """The docs with the size's table between its marks; as they are where they have none."""
    return between_marks(content, size, "make experiment", text)


def between_marks(content: str, name: str, maker: str, told: Callable[[str], str]) -> str:
    """The docs with what is `told` of `name` between its marks; as they are where they have none."""
    begin, end = f"<!-- {name}: made by {maker} -->", f"<!-- {name}: end -->"
    if begin not in content:
        return content
    before, rest = content.split(begin)
    return f"{before}{begin}\n{told(name)}{end}{rest.split(end)[1]}"


def main() -> None:
    """Print a size's table, write it where it belongs, and put its results on record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", nargs="?", default="small", choices=SIZES)
    asked = parser.parse_args()
    try:
        DOCS.write_text(written(DOCS.read_text(), asked.size))
        keep(asked.size)
        print(text(asked.size))
    except UserError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
