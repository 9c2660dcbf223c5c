"""Choosing: the winner seeds, the title is defended, and the words say which and why."""

import numpy as np

from evaluation.results import RowResults
from orchestrator.config.sections import Selection
from orchestrator.field.model_ref import BASE as BASE_MODEL
from orchestrator.field.model_ref import ModelRef
from orchestrator.rounds.verdict import Candidate, choose

TOKENS = np.full(300, 10.0)
RULES = Selection(resamples=500)


def shifted(nats_per_token: float, noise: float = 0.1, seed: int = 0) -> RowResults:
    rng = np.random.default_rng(seed)
    base = TOKENS * (3.0 + 0.3 * np.random.default_rng(99).standard_normal(len(TOKENS)))
    spread = rng.standard_normal(len(TOKENS))
    return RowResults(base + TOKENS * (noise * (spread - spread.mean()) - nats_per_token), TOKENS)


BASE = Candidate(BASE_MODEL, shifted(0.0, 0.0))


def test_a_proven_winner_takes_the_title_and_seeds():
    verdict = choose("l", 1, BASE, BASE, {"a": shifted(0.2, seed=1), "b": shifted(0.1, seed=2)}, RULES, 0)
    assert (verdict.winner, verdict.champion, verdict.seed_next) == ("a", ModelRef("a", 1), ModelRef("a", 1))
    assert verdict.dethroned
    assert [s.competitor for s in verdict.entries] == ["a", "b"]
    assert "takes the title" in " ".join(verdict.reasons)


def test_an_unproven_winner_seeds_but_the_title_stays():
    entry = shifted(0.003, noise=0.1, seed=4)
    assert entry.loss < BASE.validation.loss
    verdict = choose("l", 2, BASE, BASE, {"a": entry}, RULES, 0)
    assert verdict.seed_next == ModelRef("a", 2)
    assert verdict.champion == BASE_MODEL
    assert not verdict.dethroned
    assert "could be chance" in verdict.reasons[0]
    assert verdict.validation_loss == BASE.validation.loss
    assert verdict.seed_validation_loss == entry.loss


def test_a_worse_winner_neither_seeds_nor_reigns():
    champion = Candidate(ModelRef("c", 1), shifted(0.3, seed=1))
    verdict = choose("l", 2, champion, champion, {"a": shifted(0.1, seed=2)}, RULES, 0)
    assert (verdict.winner, verdict.champion, verdict.seed_next) == ("a", ModelRef("c", 1), ModelRef("c", 1))
    assert "keeps the title" in verdict.reasons[0]
    assert "starts from the champion again, c of round 1" in verdict.reasons[1]


def test_the_last_seed_may_be_lower_than_champion_and_winner():
    champion, seed = (
        Candidate(ModelRef("c", 1), shifted(0.3, seed=1)),
        Candidate(ModelRef("s", 2), shifted(0.31, seed=2)),
    )
    assert seed.validation.loss < champion.validation.loss
    verdict = choose("l", 3, champion, seed, {"a": shifted(0.25, seed=3)}, RULES, 0)
    assert verdict.seed_next == ModelRef("s", 2)
    assert "the last round's seed" in verdict.reasons[-1]


def test_seed_champion_gives_the_seed_to_the_champion_alone():
    rules = Selection(resamples=500, seed="champion")
    verdict = choose("l", 2, BASE, BASE, {"a": shifted(0.003, noise=0.1, seed=4)}, rules, 0)
    assert verdict.seed_next == BASE_MODEL
    verdict = choose("l", 2, BASE, BASE, {"a": shifted(0.2, seed=4)}, rules, 0)
    assert verdict.seed_next == ModelRef("a", 2)


def test_a_margin_asks_for_more_than_proof():
    entries = {"a": shifted(0.1, seed=1)}
    assert choose("l", 1, BASE, BASE, entries, RULES, 0).dethroned
    verdict = choose("l", 1, BASE, BASE, entries, Selection(resamples=500, margin_nats=0.2), 0)
    assert not verdict.dethroned
    assert "more than 0.2 is asked" in verdict.reasons[0]


def test_when_all_forfeit_the_incumbents_stay():
    champion, seed = (
        Candidate(ModelRef("c", 1), shifted(0.3, seed=1)),
        Candidate(ModelRef("s", 2), shifted(0.4, seed=2)),
    )
    verdict = choose("l", 3, champion, seed, {}, RULES, 0)
    assert verdict.winner is None
    assert (verdict.champion, verdict.seed_next) == (ModelRef("c", 1), ModelRef("s", 2))
    assert "Every entry forfeited" in verdict.reasons[0]


def test_patience_ends_the_lineage():
    rules = Selection(resamples=500, patience=2)
    worse = {"a": shifted(-0.1)}
    first = choose("l", 1, BASE, BASE, worse, rules, 0)
    assert not first.ends_lineage
    second = choose("l", 2, BASE, BASE, worse, rules, 0, first.rounds_without_champion)
    assert second.ends_lineage
    assert "patience 2" in second.reasons[-1]


def test_it_depends_on_nothing_but_its_arguments():
    """Not on the order of the entries, not on what was drawn before, and on the seed only through the bounds."""
    entries = {"a": shifted(0.01, seed=1), "b": shifted(0.012, seed=2), "c": shifted(-0.2, seed=3)}
    first = choose("l", 1, BASE, BASE, entries, RULES, 5)
    np.random.default_rng(5).standard_normal(10)
    turned = choose("l", 1, BASE, BASE, dict(reversed(entries.items())), RULES, 5)
    assert turned.ranking == first.ranking
    assert [s.improvement_low for s in turned.entries] == [s.improvement_low for s in first.entries]
    other = choose("l", 1, BASE, BASE, entries, RULES, 6)
    assert other.ranking == first.ranking
    assert [s.improvement_low for s in other.entries] != [s.improvement_low for s in first.entries]


def test_equal_losses_leave_the_incumbents_where_they_are():
    champion = Candidate(ModelRef("c", 1), shifted(0.3, seed=1))
    verdict = choose("l", 2, champion, champion, {"aa-copy": champion.validation}, RULES, 0)
    assert (verdict.champion, verdict.seed_next) == (champion.model, champion.model)
