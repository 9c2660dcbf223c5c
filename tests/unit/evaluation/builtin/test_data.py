import os
import subprocess
import sys

import pytest

from cluster.errors import UserError
from evaluation.builtin.data import TASKS, rows
from evaluation.builtin.words import CAPITALS, KIND_OF, OPPOSITES, article, plural

QUICKSTART = rows("quickstart")


def of_task(task: str) -> list[dict[str, str]]:
    return [row for row in QUICKSTART if row["task"] == task]


def test_size_columns_and_unique_instructions() -> None:
    assert 5500 <= len(QUICKSTART) <= 6500
    assert all(set(row) == {"instruction", "response", "task"} and all(row.values()) for row in QUICKSTART)
    assert len({" ".join(row["instruction"].casefold().split()) for row in QUICKSTART}) == len(QUICKSTART)


def test_every_task_has_its_share_and_they_are_mixed() -> None:
    assert {row["task"] for row in QUICKSTART} == set(TASKS)
    assert all(len(of_task(task)) >= 150 for task in TASKS)
    assert {row["task"] for row in QUICKSTART[:300]} == set(TASKS)


def test_the_same_rows_in_a_process_with_another_hash_seed() -> None:
    code = "import hashlib; from evaluation.builtin.data import rows; "
    code += "print(hashlib.sha256(repr(rows('quickstart')).encode()).hexdigest())"
    prints = {
        subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": os.pathsep.join(sys.path)},
            check=True,
            capture_output=True,
            text=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(prints) == 1


def test_sums_are_right() -> None:
    asked = [row for row in of_task("addition") if row["instruction"].endswith("=")]
    assert asked
    for row in asked:
        assert sum(map(int, row["instruction"].strip(" =").split(" + "))) == int(row["response"])


def test_sorted_numbers_are_sorted() -> None:
    asked = [row for row in of_task("sorting") if row["response"].startswith("In order: ")]
    assert asked
    for row in asked:
        given = row["instruction"].split(": ")[1].strip(".").split(", ")
        assert row["response"] == f"In order: {', '.join(sorted(given, key=int))}."


def test_the_odd_one_is_odd() -> None:
    asked = [row for row in of_task("odd_one_out") if row["instruction"].startswith("Find")]
    assert asked
    for row in asked:
        words = row["instruction"].split(": ")[1].strip(".").split(", ")
        kinds = [KIND_OF[word] for word in words]
        assert kinds.count(KIND_OF[row["response"]]) == 1


def test_words_stand_in_one_place_of_their_table() -> None:
    assert len(set(OPPOSITES) | set(OPPOSITES.values())) == 2 * len(OPPOSITES)
    assert len(set(CAPITALS.values())) == len(CAPITALS)


@pytest.mark.parametrize(
    ("one", "many"),
    [("dog", "dogs"), ("cherry", "cherries"), ("fox", "foxes"), ("wolf", "wolves"), ("potato", "potatoes")],
)
def test_plural(one: str, many: str) -> None:
    assert plural(one) == many


def test_article() -> None:
    assert [article(noun) for noun in ("apple", "dog", "milk")] == ["an apple", "a dog", "milk"]


def test_unknown_name_names_the_nearest() -> None:
    with pytest.raises(UserError, match=r'quickstrat.*"quickstart"'):
        rows("quickstrat")
