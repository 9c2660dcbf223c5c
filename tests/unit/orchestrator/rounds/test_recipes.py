"""What repeats say of recipes, in words: that one is better only where its runs and the rows show it."""

from collections.abc import Sequence

import numpy as np
import pytest

from competitors.sft.recipe import SftRecipe
from evaluation.results import RowResults
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.model_ref import BASE
from orchestrator.field.roster import Roster, RosterEntry
from orchestrator.record.records import RecipeStanding
from orchestrator.rounds.judging import judge
from orchestrator.rounds.recipes import compare_recipes
from orchestrator.rounds.verdict import Candidate
from tests.faked import made_up
from tests.unit.orchestrator.config.test_loading import MINIMAL

ROWS = 120
BETTER = " is better than "


def roster(**runs: int) -> Roster:
    """So many runs of each recipe, and one that is not repeated."""
    names = [(f"{recipe}-{number + 1}", recipe) for recipe, count in runs.items() for number in range(count)]
    entries = [
        RosterEntry(recipe=SftRecipe(name=name, kind="sft", learning_rate=1, repeat_of=recipe))
        for name, recipe in [*names, ("once", None)]
    ]
    return Roster(lineage="l", round=1, entries=entries)


def results(loss: float, rng: np.random.Generator) -> RowResults:
    tokens = np.full(ROWS, 10.0)
    noise = 0.05 * rng.standard_normal(ROWS)
    return RowResults(tokens * (loss + noise - noise.mean()), tokens)


def compared(confidence: float = 0.95, runs: int = 3, **losses: Sequence[float]) -> list[RecipeStanding]:
    """`losses` of the scored runs, of `runs` that were entered of each recipe."""
    rng = np.random.default_rng(5)
    scored = {f"{name}-{i + 1}": results(x, rng) for name, own in losses.items() for i, x in enumerate(own)}
    return compare_recipes(roster(**dict.fromkeys(losses, runs)), scored | {"once": results(1.0, rng)}, confidence)


def test_a_recipe_is_better_where_all_its_runs_are():
    first, second = compared(a=[3.1, 3.11, 3.12], b=[3.0, 3.01, 3.02])
    assert (first.recipe, first.validation_loss, first.deviation) == ("b", pytest.approx(3.01), pytest.approx(0.01))
    assert (first.behind, first.words) == (None, "")
    assert second.losses == pytest.approx([3.1, 3.11, 3.12])
    assert second.behind == pytest.approx(0.1)
    assert 0 < (second.behind_low or 0) < 0.1 < (second.behind_high or 0)
    assert second.words.startswith(
        "b is better than a from this seed model with this budget: the mean loss of b is 0.1"
    )
    assert "at 95% confidence" in second.words


def test_what_another_seed_could_undo_is_training_noise():
    second = compared(a=[3.0, 3.1, 3.2], b=[3.05, 3.0, 3.1])[1]
    assert (second.behind_low or 0) < 0 < (second.behind or 0) < (second.behind_high or 0)
    assert second.words.startswith("The mean loss of b is 0.0500 nats below that of a (−")
    assert second.words.endswith("training noise and the choice of rows alone could make this difference.")


def test_more_recipes_to_pick_from_ask_for_more():
    pair = {"a": [3.1, 3.11, 3.12], "b": [3.0, 3.01, 3.02]}
    alone, among = compared(**pair)[1], compared(**pair, c=[4.0, 4.1, 4.2], d=[5.0, 5.1, 5.2])[1]
    assert (alone.recipe, alone.behind) == (among.recipe, among.behind)
    assert (among.behind_low or 0) < (alone.behind_low or 0)


def test_runs_that_were_not_scored_are_told_and_a_recipe_does_not_win_by_losing_them():
    first, second, third = compared(a=[3.1, 3.11], b=[3.0, 3.001], c=[2.0])
    assert [one.recipe for one in (first, second, third)] == ["b", "a", "c"]
    assert "But only 2 of 3 runs of b were scored, and the others may have been worse: nothing is" in second.words
    assert third.words == "1 of 3 runs of c was scored: too few to speak of the recipe."
    assert (third.runs, third.losses, third.deviation, third.behind) == (3, [2.0], None, None)
    whole = compared(a=[3.1, 3.11], b=[3.0, 3.001, 3.002])[1]
    assert BETTER in whole.words  # what a has lost would not have made it better
    nobody = compared(a=[])[0]
    assert (nobody.validation_loss, nobody.words) == (
        None,
        "0 of 3 runs of a were scored: too few to speak of the recipe.",
    )


def test_one_recipe_alone_has_its_spread():
    (only,) = compared(a=[3.0, 3.1, 3.2])
    assert only.words == (
        "3 of 3 runs of a were scored: another random seed changes the loss by 0.1000 nats (standard deviation)."
    )


def test_without_repeats_there_is_nothing():
    assert compared() == []


@pytest.mark.parametrize("recipes", ["ab", "abcd"])
def test_equal_recipes_are_called_better_in_one_round_of_twenty_at_most(recipes: str):
    rng, rounds = np.random.default_rng(3), 250
    field = roster(**dict.fromkeys(recipes, 3))

    def told(gap: float) -> float:
        """In what share of rounds one is said to be better, where the last lies so far below the others."""
        count = 0
        for _ in range(rounds):
            runs = {e.recipe.name: results(3.0 + 0.01 * rng.standard_normal(), rng) for e in field.entries}
            runs |= {
                name: RowResults(one.nats - gap * one.tokens, one.tokens)
                for name, one in runs.items()
                if name[0] == recipes[-1]
            }
            count += any(BETTER in one.words for one in compare_recipes(field, runs, 0.95))
        return count / rounds

    assert told(0.0) <= 0.05 + 0.03
    assert told(0.1) > 0.9


def test_the_verdict_has_them_beside_its_own_words_which_are_of_models():
    config, base = TournamentConfig.model_validate(MINIMAL), Candidate(BASE, made_up(4.0, "base"))
    field = roster(a=2, b=2)
    scored = {
        f"{name}-{run}": made_up(loss + run / 100, f"{name}{run}")
        for name, loss in (("a", 3.5), ("b", 3.0))
        for run in (1, 2)
    }
    verdict = judge(config, field, base, base, scored, None, [])
    assert [one.recipe for one in verdict.recipes] == ["b", "a"]
    assert BETTER in verdict.recipes[1].words
    assert not any("recipe" in reason for reason in verdict.reasons)
