"""A recipe at another batch, another rate, or as a part of a plan."""

import pytest

from cluster.resources import Resources
from competitors.sft.recipe import SftRecipe
from orchestrator.field.scaling import at_rate, carried, miniature, part_of_a_line, spread


def recipe(**settings: object) -> SftRecipe:
    fixed = {"name": "a", "kind": "sft", "learning_rate": 4e-3, "batch_size": 16, "betas": (0.9, 0.96)}
    return SftRecipe.model_validate(fixed | settings)


def test_a_smaller_batch_keeps_what_a_sequence_is_worth():
    """The square-root rule: a quarter of the batch, half the rate, moments over as many sequences."""
    small = carried(recipe(weight_decay=0.1), 4)
    assert (small.batch, small.learning_rate) == (4, pytest.approx(2e-3))
    assert small.betas == (0.9, pytest.approx(0.96**0.25))
    # Decay per sequence, rate × decay / batch, is as before.
    assert small.learning_rate * small.weight_decay / 4 == pytest.approx(4e-3 * 0.1 / 16)


def test_there_and_back_again_is_the_same_recipe():
    again = carried(carried(recipe(gradient_accumulation=2), 1), 32)
    assert (again.batch, again.learning_rate) == (32, pytest.approx(4e-3))
    assert again.betas[1] == pytest.approx(0.96)


def test_sgd_follows_the_batch_itself():
    assert carried(recipe(optimizer="sgd"), 4).learning_rate == pytest.approx(1e-3)


@pytest.mark.parametrize(("workers", "batch", "expected"), [(4, 1, 4), (4, 16, 16), (3, 16, 15), (1, 0, 1)])
def test_each_worker_has_as_many_sequences(workers: int, batch: int, expected: int):
    gang = carried(recipe(resources={"workers": workers}), batch)
    assert gang.batch == expected
    assert gang.batch_size <= 16


def test_a_batch_that_does_not_fit_at_once_is_accumulated():
    large = carried(recipe(batch_size=4), 30)
    assert (large.batch, large.batch_size, large.gradient_accumulation) == (30, 3, 10)


def test_a_gang_shares_the_same_global_batch():
    gang = spread(recipe(batch_size=4, gradient_accumulation=4), Resources(workers=8))
    assert (gang.batch, gang.batch_size, gang.gradient_accumulation) == (16, 2, 1)
    again = spread(gang, Resources(workers=2))
    assert (again.batch, again.batch_size, again.gradient_accumulation) == (16, 2, 4)
    assert again.model_copy(update={"batch_size": 8, "gradient_accumulation": 1}) == recipe(
        batch_size=8, resources={"workers": 2}
    )
    assert spread(gang, Resources(workers=8)) == gang


def test_a_batch_that_a_gang_cannot_share_is_carried_to_the_nearest_that_it_can():
    more = spread(recipe(batch_size=2), Resources(workers=8))
    assert (more.batch, more.learning_rate) == (8, pytest.approx(8e-3))
    less = spread(recipe(batch_size=17), Resources(workers=8))
    assert (less.batch, less.learning_rate) == (16, pytest.approx(4e-3 * (16 / 17) ** 0.5))


def test_a_miniature_ends_at_zero_and_a_line_has_one_schedule():
    own = recipe(schedule="cosine_with_min_lr", schedule_args={"min_lr_rate": 0.1}, score_weights="cool_down")
    mini = miniature(own)
    assert (mini.schedule, mini.schedule_args, mini.schedule_spans, mini.score_weights) == (
        "linear",
        {},
        "round",
        "last",
    )
    assert mini.warmup == own.warmup
    between, last = part_of_a_line(mini, is_last=False), part_of_a_line(mini, is_last=True)
    assert (between.schedule_spans, between.warmup, between.continue_) == ("lineage", 0.0, True)
    assert (between.score_weights, last.score_weights) == ("tail_average", "last")
    assert at_rate(own, 2).learning_rate == pytest.approx(8e-3)
