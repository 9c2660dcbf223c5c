"""How a step's rows are put into forward passes."""

import numpy as np
import pytest

from competitors.sft.passes import PASS_TOKENS_ON_CPU, by_length, in_order, pass_limit_tokens
from tests.unit.competitors.making import sft_recipe

FOR_EVER = 10**6


def lengths_of(seed: int, rows: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(3, 256, rows)


def padded(lengths: np.ndarray, passes: list[np.ndarray]) -> int:
    """Tokens of all passes with their padding, each worker's padded to its own longest row."""
    return sum(int(lengths[rows].max(axis=0).sum()) * len(rows) for rows in passes)


@pytest.mark.parametrize("workers", [1, 2, 4])
@pytest.mark.parametrize("seed", range(4))
def test_every_row_is_in_one_pass_and_no_pass_is_too_large(workers: int, seed: int):
    lengths = lengths_of(seed, 24)
    passes = by_length(lengths, workers, 512, PASS_TOKENS_ON_CPU)
    assert sorted(np.concatenate([rows.ravel() for rows in passes])) == list(range(24))
    for rows in passes:
        assert rows.shape[1] == workers
        assert len(rows) * lengths[rows].max() <= 512


def test_little_is_padding():
    lengths = lengths_of(0, 64)
    whole = lengths.sum()
    assert padded(lengths, in_order(64, 1, 16)) > 1.7 * whole
    assert padded(lengths, by_length(lengths, 1, 4096, PASS_TOKENS_ON_CPU)) < 1.15 * whole


def test_workers_have_about_as_much_to_do():
    lengths = lengths_of(1, 64)
    shares = [0, 0]
    for rows in by_length(lengths, 2, 2048, PASS_TOKENS_ON_CPU):
        for worker in (0, 1):
            shares[worker] += len(rows) * int(lengths[rows[:, worker]].max())
    assert shares[0] == pytest.approx(shares[1], rel=0.05)


def test_passes_are_few_where_starting_one_is_dear_and_many_where_it_is_free():
    lengths = lengths_of(2, 16)
    assert len(by_length(lengths, 1, FOR_EVER, FOR_EVER)) == 1
    assert len(by_length(lengths, 1, FOR_EVER, 0)) == len(set(lengths))


def test_the_cut_is_the_cheapest_of_all():
    lengths = np.array([5, 90, 7, 40, 38, 88])

    def cost(passes: list[np.ndarray]) -> int:
        return padded(lengths, passes) + 30 * len(passes)

    order = np.argsort(lengths).reshape(-1, 1)
    every = []
    for marks in range(2**5):
        cuts = [i + 1 for i in range(5) if marks >> i & 1]
        every.append(cost(np.split(order, cuts)))
    assert cost(by_length(lengths, 1, FOR_EVER, 30)) == min(every)


def test_a_row_above_the_limit_has_a_pass_of_its_own_and_the_longest_comes_first():
    lengths = np.array([10, 700, 10, 20])
    passes = by_length(lengths, 1, 64, 0)
    assert passes[0].tolist() == [[1]]


def test_a_pass_takes_no_more_than_batch_size_rows_of_full_length():
    assert pass_limit_tokens(sft_recipe(batch_size=8), 1024, on_gpu=True) == 8192
    assert pass_limit_tokens(sft_recipe(batch_size=2), 256, on_gpu=False) == 512
    assert pass_limit_tokens(sft_recipe(batch_size=64), 256, on_gpu=False) == 1024
    assert pass_limit_tokens(sft_recipe(batch_size=8), 4096, on_gpu=False) == 4096
    assert pass_limit_tokens(sft_recipe(batch_size=64, optimizer="lomo"), 256, on_gpu=False) == 64 * 256
    assert pass_limit_tokens(sft_recipe(batch_size=8, packing=True), 1024, on_gpu=True) == 1024
    flash = {"packing": True, "attention": "flash_attention_2"}
    assert pass_limit_tokens(sft_recipe(batch_size=8, **flash), 1024, on_gpu=True) == 8192
