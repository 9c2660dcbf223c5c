"""`python -m tests.experiments.table SIZE`: the table of a size, from what is done of it.

It also goes into docs/experiments.md where that has marks for the size.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from tests.experiments import recipes
from tests.experiments.results import Result, keep, read_all
from tests.experiments.run import RUNS
from tests.experiments.sizes import SIZES, Setting

DOCS = Path(__file__).parents[2] / "docs" / "experiments.md"
OURS = "ours"
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365}
"""Student's t for a two-sided interval of 95 %, by the number of seeds."""

Loss = Callable[[Result], float]


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
    wide = tuple(name.replace("alone-", "wide-") for name in dict.fromkeys((*own, *zero)))
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
            "The best of the rows above, stopped where validation was lowest. Knows which recipe wins.",
            at_best_checkpoint,
        ),
        Row(
            "best of a grid of 12",
            tuple(one.name for one in recipes.grid(adapters)),
            "Each of twelve with everything, the best chosen afterwards: knows the future, and spent twelve budgets.",
        ),
        Row("random search", ("random",), "Four recipes at random with a quarter each, the best kept."),
        Row("ASHA", ("asha",), "Ray Tune's, over random recipes until all is spent."),
        Row("TPE with ASHA", ("tpe",), "Optuna proposes, Ray Tune's ASHA stops."),
        Row("population-based training", ("pbt",), "Ray Tune's, a population of four."),
        Row("equal rounds", ("naive",), "The tournament as published: five rounds, all recipes the same in each."),
        Row("without the race", ("ours-no-race",), "One of the four recipes, picked blindly."),
        Row("without the climb", ("ours-no-climb",), "The winner's rate is never tried higher or lower."),
        Row("without the optimizer", ("ours-no-optimizer",), "Each round starts with a fresh optimizer."),
        Row("without several lines", ("ours-one-line",), "One line even where data is short."),
        Row("four workers: the tournament", ("wide-ours",), "Steps of four rows, one for each worker."),
        Row("four workers: best recipe alone", wide, "Data-parallel, batch × 4; the best, chosen afterwards."),
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
    said = _with_interval(values, "")
    return said if row.arms == (OURS,) or not behind else f"{said} ({_with_interval(behind, '+')})"


def _with_interval(values: Sequence[float], sign: str) -> str:
    half = interval(values)
    return f"{mean(values):{sign}.3f}" + ("" if half is None else f" ± {half:.3f}")


def table(settings: Sequence[Setting], results: Sequence[Result], adapters: bool) -> list[str]:
    """Lines of Markdown."""
    head = ["arm", *(one.title for one in settings), "padded", "in plain words"]
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    for row in rows(adapters):
        of = [[one for one in results if one.setting == setting.name] for setting in settings]
        cells = [losses_cell(row, some) for some in of]
        used = [one for some in of for one in chosen(row, some)]
        if used:
            padded = mean(one.padded_tokens / one.tokens for one in used)
            lines.append(f"| {' | '.join([row.name, *cells, f'× {padded:.2f}', row.words])} |")
    return lines


def text(size: str) -> str:
    """The table of a size and what its figures are."""
    settings, results = SIZES[size].settings, read_all(RUNS / size)
    done = len({one.seed for one in results})
    seeds = "one seed" if done == 1 else f"mean of {done} seeds with a 95 % interval"
    tokens = ", ".join(f"{one.title}: {one.total_tokens:,} of them" for one in settings)
    rows_held = settings[0].held_out
    return "\n".join(
        [
            f"Test loss in nats per completion token, {seeds}, and in brackets how far above the"
            f" tournament, paired by seed. Real training tokens in all, for every arm: {tokens}."
            f" {rows_held} rows choose, {rows_held} report. Padded: tokens with padding for each real one.",
            "",
            *table(settings, results, settings[0].adapters),
            "",
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
    DOCS.write_text(written(DOCS.read_text(), asked.size))
    keep(asked.size, RUNS / asked.size)
    print(text(asked.size))


if __name__ == "__main__":
    main()
