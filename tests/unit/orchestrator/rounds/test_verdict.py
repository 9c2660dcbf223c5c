"""Choosing: the winner seeds, the title is defended, and the words say which and why."""

import numpy as np

from evaluation.results import RowResults
from orchestrator.config import Selection
from orchestrator.rounds.verdict import Candidate, choose

TOKENS = np.full(300, 10.0)
RULES = Selection(resamples=500)


def shifted(nats_per_token: float, noise: float = 0.1, seed: int = 0) -> RowResults:
    rng = np.random.default_rng(seed)
    base = TOKENS * (3.0 + 0.3 * np.random.default_rng(99).standard_normal(len(TOKENS)))
    spread = rng.standard_normal(len(TOKENS))
    return RowResults(base + TOKENS * (noise * (spread - spread.mean()) - nats_per_token), TOKENS)


BASE = Candidate("base", shifted(0.0, 0.0))


def test_a_proven_winner_takes_the_title_and_seeds():
    verdict = choose("l", 1, BASE, BASE, {"a": shifted(0.2, seed=1), "b": shifted(0.1, seed=2)}, RULES, 0)
    assert (verdict.winner, verdict.champion, verdict.seed_next) == ("a", "a@1", "a@1")
    assert verdict.dethroned
    assert verdict.winner_proven
    assert [s.competitor for s in verdict.entries] == ["a", "b"]
    assert "takes the title" in " ".join(verdict.reasons)


def test_an_unproven_winner_seeds_but_the_title_stays():
    entry = shifted(0.003, noise=0.1, seed=4)
    assert entry.loss < BASE.validation.loss
    verdict = choose("l", 2, BASE, BASE, {"a": entry}, RULES, 0)
    assert verdict.seed_next == "a@2"
    assert verdict.champion == "base"
    assert not verdict.dethroned
    assert "could be chance" in verdict.reasons[0]
    assert verdict.validation_loss == BASE.validation.loss
    assert verdict.seed_validation_loss == entry.loss


def test_a_worse_winner_neither_seeds_nor_reigns():
    champion = Candidate("c@1", shifted(0.3, seed=1))
    verdict = choose("l", 2, champion, champion, {"a": shifted(0.1, seed=2)}, RULES, 0)
    assert (verdict.winner, verdict.champion, verdict.seed_next) == ("a", "c@1", "c@1")
    assert "keeps the title" in verdict.reasons[0]
    assert "starts from the champion again, c of round 1" in verdict.reasons[1]


def test_the_last_seed_may_be_lower_than_champion_and_winner():
    champion, seed = Candidate("c@1", shifted(0.3, seed=1)), Candidate("s@2", shifted(0.31, seed=2))
    assert seed.validation.loss < champion.validation.loss
    verdict = choose("l", 3, champion, seed, {"a": shifted(0.25, seed=3)}, RULES, 0)
    assert verdict.seed_next == "s@2"
    assert "the last round's seed" in verdict.reasons[-1]


def test_seed_champion_gives_the_seed_to_the_champion_alone():
    rules = Selection(resamples=500, seed="champion")
    verdict = choose("l", 2, BASE, BASE, {"a": shifted(0.003, noise=0.1, seed=4)}, rules, 0)
    assert verdict.seed_next == "base"
    verdict = choose("l", 2, BASE, BASE, {"a": shifted(0.2, seed=4)}, rules, 0)
    assert verdict.seed_next == "a@2"


def test_a_margin_asks_for_more_than_proof():
    entries = {"a": shifted(0.1, seed=1)}
    assert choose("l", 1, BASE, BASE, entries, RULES, 0).dethroned
    verdict = choose("l", 1, BASE, BASE, entries, Selection(resamples=500, margin_nats=0.2), 0)
    assert not verdict.dethroned
    assert "more than 0.2 is asked" in verdict.reasons[0]


def test_when_all_forfeit_the_incumbents_stay():
    champion, seed = Candidate("c@1", shifted(0.3, seed=1)), Candidate("s@2", shifted(0.4, seed=2))
    verdict = choose("l", 3, champion, seed, {}, RULES, 0)
    assert verdict.winner is None
    assert (verdict.champion, verdict.seed_next) == ("c@1", "s@2")
    assert "Every entry forfeited" in verdict.reasons[0]


def test_patience_ends_the_lineage():
    rules = Selection(resamples=500, patience=2)
    worse = {"a": shifted(-0.1)}
    first = choose("l", 1, BASE, BASE, worse, rules, 0)
    assert not first.ends_lineage
    second = choose("l", 2, BASE, BASE, worse, rules, 0, first.rounds_without_champion)
    assert second.ends_lineage
    assert "patience 2" in second.reasons[-1]


def test_it_is_a_pure_function():
    entries = {"a": shifted(0.01, seed=1), "b": shifted(0.01, seed=2)}
    assert choose("l", 1, BASE, BASE, entries, RULES, 5) == choose("l", 1, BASE, BASE, entries, RULES, 5)
