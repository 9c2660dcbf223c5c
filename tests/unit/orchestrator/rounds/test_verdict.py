"""Choosing: the winner seeds, the title is defended, and the words say which and why."""

import numpy as np
import pytest

from evaluation.figures import FIGURES
from evaluation.results import RowResults
from evaluation.scorecard import SplitScore
from orchestrator.config.sections import Guardrail, Selection
from orchestrator.field.model_ref import BASE as BASE_MODEL
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.records import Verdict
from orchestrator.rounds.proving import challenger, guarded, prove
from orchestrator.rounds.verdict import Candidate, beats_all, choose

TOKENS = np.full(300, 10.0)
RULES = Selection()


def shifted(nats_per_token: float, noise: float = 0.1, seed: int = 0) -> RowResults:
    rng = np.random.default_rng(seed)
    base = TOKENS * (3.0 + 0.3 * np.random.default_rng(99).standard_normal(len(TOKENS)))
    spread = rng.standard_normal(len(TOKENS))
    return RowResults(base + TOKENS * (noise * (spread - spread.mean()) - nats_per_token), TOKENS)


BASE = Candidate(BASE_MODEL, shifted(0.0, 0.0))


def settled(
    number: int,
    champion: Candidate,
    seed: Candidate,
    entries: dict[str, RowResults],
    rules: Selection = RULES,
    without: int = 0,
    spent: float = 0.0,
) -> Verdict:
    """The verdict, where the rows that prove say what those that choose say."""
    winner, proof = challenger(champion.validation, entries), None
    if winner is not None:
        of = entries[winner]
        proof = prove((champion.validation,) * 2, (of, of), 0.01, rules.margin_nats)
    return choose("l", number, champion, seed, entries, rules, proof, spent, without)


def test_a_proven_winner_takes_the_title_and_seeds():
    verdict = settled(1, BASE, BASE, {"a": shifted(0.2, seed=1), "b": shifted(0.1, seed=2)})
    assert (verdict.winner, verdict.champion, verdict.seed_next) == ("a", ModelRef("a", 1), ModelRef("a", 1))
    assert verdict.dethroned
    assert [s.competitor for s in verdict.entries] == ["a", "b"]
    assert "takes the title" in " ".join(verdict.reasons)


def test_an_unproven_winner_seeds_but_the_title_stays():
    entry = shifted(0.003, noise=0.1, seed=4)
    assert entry.loss < BASE.validation.loss
    verdict = settled(2, BASE, BASE, {"a": entry})
    assert verdict.seed_next == ModelRef("a", 2)
    assert verdict.champion == BASE_MODEL
    assert not verdict.dethroned
    assert "proves no gain" in verdict.reasons[1]
    assert verdict.validation_loss == BASE.validation.loss
    assert verdict.seed_validation_loss == entry.loss


def test_a_worse_winner_neither_seeds_nor_reigns():
    champion = Candidate(ModelRef("c", 1), shifted(0.3, seed=1))
    verdict = settled(2, champion, champion, {"a": shifted(0.1, seed=2)})
    assert (verdict.winner, verdict.champion, verdict.seed_next) == ("a", ModelRef("c", 1), ModelRef("c", 1))
    assert "keeps the title" in verdict.reasons[1]
    assert "starts from the champion again, c of round 1" in verdict.reasons[2]


def test_the_last_seed_may_be_lower_than_champion_and_winner():
    champion, seed = (
        Candidate(ModelRef("c", 1), shifted(0.3, seed=1)),
        Candidate(ModelRef("s", 2), shifted(0.31, seed=2)),
    )
    assert seed.validation.loss < champion.validation.loss
    verdict = settled(3, champion, seed, {"a": shifted(0.25, seed=3)})
    assert verdict.seed_next == ModelRef("s", 2)
    assert "the last round's seed" in verdict.reasons[-1]


def test_seed_champion_gives_the_seed_to_the_champion_alone():
    rules = Selection(seed="champion")
    verdict = settled(2, BASE, BASE, {"a": shifted(0.003, noise=0.1, seed=4)}, rules)
    assert verdict.seed_next == BASE_MODEL
    verdict = settled(2, BASE, BASE, {"a": shifted(0.2, seed=4)}, rules)
    assert verdict.seed_next == ModelRef("a", 2)


def test_a_margin_asks_for_more_than_proof():
    entries = {"a": shifted(0.1, seed=1)}
    assert settled(1, BASE, BASE, entries).dethroned
    verdict = settled(1, BASE, BASE, entries, Selection(margin_nats=0.2))
    assert not verdict.dethroned
    assert "no gain more than 0.2" in verdict.reasons[1]


def test_when_all_forfeit_the_incumbents_stay():
    champion, seed = (
        Candidate(ModelRef("c", 1), shifted(0.3, seed=1)),
        Candidate(ModelRef("s", 2), shifted(0.4, seed=2)),
    )
    verdict = settled(3, champion, seed, {})
    assert verdict.winner is None
    assert (verdict.champion, verdict.seed_next) == (ModelRef("c", 1), ModelRef("s", 2))
    assert "Every entry forfeited" in verdict.reasons[0]


def test_patience_ends_the_lineage():
    rules = Selection(patience=2)
    worse = {"a": shifted(-0.1)}
    first = settled(1, BASE, BASE, worse, rules)
    assert not first.ends_lineage
    second = settled(2, BASE, BASE, worse, rules, first.rounds_without_champion)
    assert second.ends_lineage
    assert "patience 2" in second.reasons[-1]


def test_of_equal_losses_the_one_that_stands_first_wins_whatever_it_is_called():
    lower = shifted(0.2, seed=1)
    assert settled(1, BASE, BASE, {"real": lower, "aa-copy": lower}).winner == "real"
    assert settled(1, BASE, BASE, {"aa-copy": lower, "real": lower}).winner == "aa-copy"


def test_the_title_goes_by_the_rows_that_prove_alone():
    looks_better, is_not = shifted(0.2, seed=1), shifted(-0.01, seed=2)
    proof = prove((BASE.validation, BASE.validation), (is_not, looks_better), 0.01, 0.0)
    verdict = choose("l", 1, BASE, BASE, {"a": looks_better}, RULES, proof, 0.02)
    assert (verdict.winner, verdict.seed_next, verdict.champion) == ("a", ModelRef("a", 1), BASE_MODEL)
    assert verdict.proof == proof
    assert verdict.spent == 0.02 + 0.01
    assert proof.improvement == pytest.approx(-0.01)
    title = settled(1, BASE, BASE, {"a": looks_better}, spent=0.02)
    assert (title.dethroned, title.spent) == (True, 0.02)


def test_what_rows_cannot_prove_is_said():
    nats = shifted(0.2, seed=1).nats
    nats[0] += 3_000
    odd = RowResults(nats, TOKENS)
    assert odd.loss > BASE.validation.loss - 0.2 + 0.9
    proof = prove((BASE.validation, BASE.validation), (odd, odd), 0.01, 0.0)
    verdict = choose("l", 1, BASE, BASE, {"a": shifted(0.2, seed=1)}, RULES, proof)
    assert not verdict.dethroned
    assert "much worse on a few rows" in verdict.reasons[1]


def test_beating_all_is_corrected_for_having_picked_the_best():
    clear = {"a": shifted(0.3, seed=1), "b": shifted(0.1, seed=2), "c": shifted(0.12, seed=3)}
    assert beats_all(clear, RULES)
    assert not beats_all({"a": clear["a"]}, RULES)
    assert not beats_all({**clear, "copy": clear["a"]}, RULES)
    tiny = {"a": RowResults(BASE.validation.nats - 0.0005 * TOKENS, TOKENS), "b": BASE.validation}
    assert not beats_all(tiny, RULES)  # in every row, but by less than the floor
    found = 0
    for seed in range(200):  # eight equal recipes: one leads, and rarely all of them beyond doubt
        rng = np.random.default_rng(seed)
        rows = {str(i): RowResults(TOKENS * (3 + 0.1 * rng.standard_normal(300)), TOKENS) for i in range(8)}
        found += beats_all(rows, RULES)
    assert found <= 200 * 0.05


def test_equal_losses_leave_the_incumbents_where_they_are():
    champion = Candidate(ModelRef("c", 1), shifted(0.3, seed=1))
    verdict = settled(2, champion, champion, {"aa-copy": champion.validation})
    assert (verdict.champion, verdict.seed_next) == (champion.model, champion.model)


def test_another_figure_may_choose_and_losses_are_on_record_all_the_same():
    accuracy = FIGURES["token_accuracy"]

    def seen(hits: float) -> RowResults:
        return accuracy.costs(RowResults(TOKENS * 3.0, TOKENS, hits=np.full(len(TOKENS), hits)))

    champion, rules = Candidate(BASE_MODEL, seen(4.0), 3.0), Selection(metric="token_accuracy")
    losses = {"a": 3.2, "b": 2.0}
    verdict = choose("l", 1, champion, champion, {"a": seen(6.0), "b": seen(3.0)}, rules, None, losses=losses)
    assert (verdict.metric, verdict.ranking, verdict.seed_next) == ("token_accuracy", ["a", "b"], ModelRef("a", 1))
    told = [(one.validation_loss, one.metric, round(one.improvement, 6)) for one in verdict.entries]
    assert told == [(3.2, 0.6, 0.2), (2.0, 0.3, -0.1)]
    assert (verdict.validation_loss, verdict.seed_validation_loss) == (3.0, 3.2)
    assert "its token accuracy is 0.2000 better than the champion's" in verdict.reasons[0]
    assert "nothing so far has a higher validation token accuracy" in verdict.reasons[-1]


@pytest.mark.parametrize(("after", "takes"), [(0.5, True), (0.48, True), (0.47, False), (float("nan"), False)])
def test_a_guardrail_refuses_a_champion_that_is_worse_in_what_it_looks_after(after: float, takes: bool):
    rules = Selection(guardrails=[Guardrail(metric="exact_match", max_drop=0.02)])
    counts = {"rows": 1, "tokens": 1, "bytes": 1, "rows_cut_away": 0, "rows_cut_short": 0}
    before, now = (SplitScore(figures={"loss": 1.0, "exact_match": value}, **counts) for value in (0.5, after))
    entry = shifted(0.2, seed=1)
    proof = prove((BASE.validation,) * 2, (entry, entry), 0.01, 0.0, guarded(rules, before, now))
    verdict = choose("l", 1, BASE, BASE, {"a": entry}, rules, proof)
    assert proof.is_proven
    assert verdict.dethroned == takes
    assert verdict.seed_next == ModelRef("a", 1)  # it is a title that is refused, not a seed
    if not takes:
        assert "But its exact match there goes from 50.0% to " in verdict.reasons[1]
        assert verdict.spent == 0.01
