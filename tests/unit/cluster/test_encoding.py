"""A row as token ids."""

from typing import Any

import pytest

from cluster.encoding import Encoded, batches, encode


class Letters:
    """A tokenizer with one token for each letter."""

    def __init__(self, bos: int | None = None, eos: int | None = None) -> None:
        self.bos_token_id, self.eos_token_id = bos, eos

    def __call__(self, texts: list[str], add_special_tokens: bool) -> dict[str, Any]:
        assert not add_special_tokens
        return {"input_ids": [[ord(letter) - ord("a") for letter in text] for text in texts]}


BOTH, NEITHER = Letters(bos=100, eos=101), Letters()


@pytest.mark.parametrize(
    ("tokenizer", "max_tokens", "bos", "encoded"),
    [
        (BOTH, 99, True, Encoded([100, 0, 1, 2, 101], start=3, cut=False)),
        (BOTH, 99, False, Encoded([0, 1, 2, 101], start=2, cut=False)),  # a chat template wrote its own
        (NEITHER, 99, True, Encoded([0, 1, 2], start=2, cut=False)),
        (BOTH, 5, True, Encoded([100, 0, 1, 2, 101], start=3, cut=False)),
        (BOTH, 4, True, Encoded([100, 0, 1, 2], start=3, cut=True)),
        (BOTH, 2, True, Encoded([100, 0], start=2, cut=True)),  # nothing of the completion is left
    ],
)
def test_a_row(tokenizer: Letters, max_tokens: int, bos: bool, encoded: Encoded):
    assert encode(["ab"], ["c"], tokenizer, max_tokens, bos) == [encoded]
    assert encoded.completion_tokens == len(encoded.ids) - encoded.start


def test_the_first_id_of_all_is_predicted_by_nothing():
    (row,) = encode([""], ["abc"], NEITHER, 99)
    assert (row.start, row.completion_tokens) == (1, 2)
    (row,) = encode([""], ["abc"], BOTH, 99)
    assert (row.start, row.completion_tokens) == (1, 4)


def test_each_completion_has_its_prompt():
    rows = encode(["a", "bb"], ["c", "dd"], NEITHER, 99)
    assert [row.ids for row in rows] == [[0, 2], [1, 1, 3, 3]]
    with pytest.raises(ValueError, match="shorter"):
        encode(["a", "b"], ["c"], NEITHER, 99)


def test_batches_hold_the_token_budget_and_take_every_row_once():
    lengths = [5, 50, 7, 7, 30, 200, 1]
    found = list(batches(lengths, 64))
    assert sorted(i for batch in found for i in batch) == list(range(7))
    assert found[0] == [5]  # longer than the budget: alone
    for batch in found[1:]:
        assert max(lengths[i] for i in batch) * len(batch) <= 64
