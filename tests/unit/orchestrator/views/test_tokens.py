"""Where training tokens went, and what a champion rests on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.record.snapshot import LineageSnapshot
from orchestrator.views.tokens import Tokens, left_over, left_over_in_words, line_of, tokens_of
from tests.faked import FakedWorkers, allocated, climbing, faked_config, play


def played(folder: Path, config: Any, **workers: Any) -> LineageSnapshot:
    return play(config(folder), folder / "run", FakedWorkers(**workers)).lineages[0]


def test_in_equal_rounds_the_line_is_that_of_the_seeds(tmp_path: Path):
    """Of four entries of 100 tokens the champion rests on two."""
    lineage = played(tmp_path, faked_config)
    assert line_of(lineage, lineage.champion) == [ModelRef("b", 2), ModelRef("b", 1), BASE]
    assert tokens_of(lineage) == Tokens(spent=400, on_champions_line=200)


def test_with_a_whole_budget_it_is_what_the_entries_went_on_from(tmp_path: Path):
    lineage = played(tmp_path, allocated, loss_of=climbing)
    assert line_of(lineage, lineage.champion) == [
        ModelRef("a.2b", 4), ModelRef("a.2b", 3), ModelRef("a.2b", 2), ModelRef("a", 1), BASE
    ]  # fmt: skip
    account = tokens_of(lineage)
    mini = lineage.rounds[0].entries[0].submission
    assert mini is not None
    assert account.spent - account.on_champions_line == account.elsewhere == 3 * mini.train_tokens
    assert "on the champion's own line" in account.in_words


def test_what_a_soup_blends_is_counted_apart_and_what_was_lost_too(tmp_path: Path):
    def with_soup(folder: Path) -> Any:
        field = [{"name": name, "kind": "sft", "learning_rate": 1e-3} for name in ("a", "b")]
        return faked_config(folder, rounds=1, competitors=[*field, {"name": "soup", "kind": "soup"}])

    lineage = played(tmp_path, with_soup, loss_of=lambda name, number: 3.0 - (name == "soup") + 2 * (number == 0))
    (only,) = lineage.rounds
    first, *others = only.entries
    assert first.submission is not None
    lost = replace(first, submission=first.submission.model_copy(update={"lost_tokens": 7}))
    lineage = replace(lineage, rounds=(replace(only, entries=(lost, *others)),))
    assert lineage.champion == ModelRef("soup", 1)
    soup = only.entry("soup")
    assert soup is not None
    assert soup.submission is not None
    own = soup.submission.train_tokens  # these workers only pretend, and say that a soup has trained
    assert tokens_of(lineage) == Tokens(spent=207 + own, on_champions_line=own, on_ingredients=200, lost=7)


def test_what_a_budget_leaves_over_is_said_with_its_reason(tmp_path: Path):
    """120 rows of some 12 tokens: a race, eight lines and their soup take a small part of a million."""
    short = allocated(tmp_path / "in", allocation={"climb": False}, rounds=4, budget={"total_tokens": 1_000_000})
    (lineage,) = play(short, tmp_path / "run", FakedWorkers(climbing)).lineages
    spent = tokens_of(lineage).spent
    assert left_over(short, lineage) == 1_000_000 - spent > 500_000
    assert left_over_in_words(short, lineage) == (
        f"{1_000_000 - spent:,} of the 1,000,000 of its budget are left over: more passes over the data would overfit."
    )
    assert left_over(short, replace(lineage, rounds=lineage.rounds[:2])) is None
    long = short.model_copy(update={"budget": short.budget.model_copy(update={"total_tokens": spent + 10})})
    assert (left_over(long, lineage), left_over_in_words(long, lineage)) == (10, "")


@pytest.mark.parametrize(
    ("tokens", "words"),
    [
        (Tokens(), "No tokens were trained."),
        (Tokens(spent=1000, on_champions_line=960, lost=4), "1,000 tokens were trained: 96% on the champion's own line,"
         " 4% on others, 0.4% lost."),
    ],
)  # fmt: skip
def test_it_is_said_in_a_sentence(tokens: Tokens, words: str):
    assert tokens.in_words == words


def soup_of_lines(folder: Path) -> LineageSnapshot:
    """A race, a climb, and two rounds of lines from one trunk, of which the soup of three is the best."""

    def short(inputs: Path) -> Any:
        return allocated(inputs, rounds=5, allocation={})

    return played(folder, short, loss_of=lambda name, number: climbing(name, number) - (name == "soup-of-3"))


def test_a_trunk_counts_once_however_many_lines_of_a_soup_rest_on_it(tmp_path: Path):
    lineage = soup_of_lines(tmp_path)
    own = line_of(lineage, lineage.champion)
    soup = lineage.entry(lineage.champion)
    assert soup is not None
    assert soup.brief is not None
    assert len(own) > 2
    blended = {ModelRef.parse(one.label) for one in soup.brief.ingredients}
    trained = {
        kind: sum(e.submission.train_tokens for one in models if (e := lineage.entry(one)) and e.submission)
        for kind, models in (("own", own), ("blended", blended))
    }
    account = tokens_of(lineage)
    assert (account.on_champions_line, account.on_ingredients) == (trained["own"], trained["blended"])


def test_what_found_no_continuation_rests_on_the_seed_of_its_round(tmp_path: Path):
    lineage = played(tmp_path, allocated, loss_of=climbing)
    *before, last = lineage.rounds
    (entry,) = last.entries
    assert entry.brief is not None
    afresh = replace(entry, brief=entry.brief.model_copy(update={"seed_continuation": None}))
    verdict = before[-1].verdict
    assert verdict is not None
    seeded = replace(before[-1], verdict=verdict.model_copy(update={"seed_next": BASE}))
    lineage = replace(lineage, rounds=(*before[:-1], seeded, replace(last, entries=(afresh,))))
    assert line_of(lineage, ModelRef("a.2b", 4)) == [ModelRef("a.2b", 4), BASE]
