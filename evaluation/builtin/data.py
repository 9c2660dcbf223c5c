"""The data that comes with the package: `builtin:quickstart`, instructions a very small model can learn.

The tasks are in tasks.py, their words in words.py. Every row is made by rule, so every answer
can be checked, and the same rows come out on every machine: the only randomness is `random.Random` seeded
with a string.
"""

from collections.abc import Callable
from random import Random

from cluster.errors import UserError
from cluster.records import nearest
from evaluation.builtin import tasks

ROWS_PER_TASK = 300

TASKS: dict[str, Callable[[Random], tasks.Pairs]] = {
    "addition": tasks.addition,
    "subtraction": tasks.subtraction,
    "comparison": tasks.comparison,
    "neighbours": tasks.neighbours,
    "sequences": tasks.sequences,
    "sorting": tasks.sorting,
    "opposites": tasks.opposites,
    "plurals": tasks.plurals,
    "past_tense": tasks.past_tense,
    "capitals": tasks.capitals,
    "categories": tasks.categories,
    "colours": tasks.colours,
    "letters": tasks.letters,
    "positions": tasks.positions,
    "counting": tasks.counting,
    "odd_one_out": tasks.odd_one_out,
    "yes_or_no": tasks.yes_or_no,
    "rhymes": tasks.rhymes,
    "extraction": tasks.extraction,
    "templates": tasks.templates,
    "calendar": tasks.calendar,
}


def rows(name: str) -> list[dict[str, str]]:
    """The rows of the built-in data `name`, each with the columns instruction, response and task.

    Raises UserError when there is no such data.
    """
    if name not in BUILTIN:
        raise UserError(f"data.source: no built-in data named {name!r}{nearest(name, BUILTIN)}")
    return BUILTIN[name]()


def quickstart() -> list[dict[str, str]]:
    """About 6,000 rows of 21 tasks in random order; no instruction comes twice."""
    found: dict[str, dict[str, str]] = {}
    for task, make in TASKS.items():
        random = Random(f"quickstart/{task}")
        pairs = sorted({i: r for i, r in make(random) if i not in found}.items())
        random.shuffle(pairs)
        for instruction, response in pairs[:ROWS_PER_TASK]:
            found[instruction] = {"instruction": instruction, "response": response, "task": task}
    result = list(found.values())
    Random("quickstart").shuffle(result)
    return result


BUILTIN: dict[str, Callable[[], list[dict[str, str]]]] = {"quickstart": quickstart}
