"""The table of entry columns: each has a key of leaderboard.json and prints what it has, or nothing."""

from pathlib import Path

from orchestrator.views.columns import COLUMNS, shown_in
from tests.fabricate import fabricate, read

WINNERS = ("improvement_seen", "improvement_low")
"""Known of a round's winner alone."""


def test_every_column_has_a_value_for_a_scored_entry_and_survives_one_that_is_not(tmp_path: Path):
    _, run = fabricate(tmp_path / "demo", forfeits={("llama", 1, "full"): "gave up"})
    round_ = read(run).lineage("llama").rounds[0]
    assert round_.verdict is not None
    assert len({column.key for column in COLUMNS}) == len(COLUMNS)
    for entry in round_.entries:
        standing = round_.verdict.standing(entry.name)
        for column in COLUMNS:
            value = column.value(entry, round_.verdict)
            is_of_all = not column.key.startswith("train_tokens_per") and column.key not in (*WINNERS, "metric")
            assert standing is None or value is not None or not is_of_all, column.key
    winner = round_.entry(str(round_.verdict.winner))
    assert winner is not None
    assert all(column.value(winner, round_.verdict) for column in COLUMNS if column.key in WINNERS)


def test_what_chose_in_the_place_of_the_loss_has_a_column():
    by_loss, by_match = shown_in("terminal"), shown_in("terminal", "exact_match")
    assert [column for column in by_match if column not in by_loss] == [by_match[1]]
    assert (by_match[1].title, by_match[1].text(0.25)) == ("exact match", "25.0%")
