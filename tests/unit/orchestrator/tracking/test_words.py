"""What MLflow says in words."""

from pathlib import Path

from evaluation.figures import FIGURES
from orchestrator.config.sections import Lineage, Reference
from orchestrator.field.model_ref import ModelRef
from orchestrator.tracking import words
from orchestrator.tracking.words import escaped, parameters
from tests.tracked import make, snapshot_of


def test_parameters_fit_mlflow() -> None:
    given = [("references.a(1).model", "x"), ("references.a[1].model", None), ("data.prompt", "y" * 7000), ("l", [1])]
    assert parameters(given) == {
        "references.a-1-.model": "x",
        "references.a-1-.model-2": "null",
        "data.prompt": "y" * 5999 + "…",
        "l": "[1]",
    }


def test_strangers_words_are_no_mark_up() -> None:
    assert escaped("lora-r16 of round 2: +0.0012 (5 %), at 3.5.") == "lora-r16 of round 2: +0.0012 (5 %), at 3.5."
    assert escaped("*x* _y_ `z` a|b ~~c~~ #d") == r"\*x\* \_y\_ \`z\` a\|b \~\~c\~\~ \#d"
    assert escaped("![x](javascript:alert(1)) {chart}") == r"!\[x\](javascript:alert(1)) \{chart\}"
    assert escaped("<script>&lt;") == "&lt;script&gt;&amp;lt;"
    assert [escaped(text) for text in ("- x", "1. x", "=", "# x")] == [r"\- x", r"1\. x", r"\=", r"\# x"]


def test_notes_escape_names_and_reasons() -> None:
    assert "**a\\_b\\*c**" in words.about_reference(Reference(name="a_b*c", published=[1.0]))
    assert "`hub/x_y`" in words.about_reference(Reference(name="a", model="hub/x_y", prompt="chat"))
    assert words.about_entry("forfeit", "out of <memory>", "") == "Forfeit: out of &lt;memory&gt;."
    assert words.about_entry("scored", "", "1 of 2") == "Scored.\n\n1 of 2."
    assert "**my\\_run**" in words.about_champions("my_run", Lineage(name="llama", base="hub/x"))


def test_the_tournaments_note_has_a_table_with_every_figure(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", rounds=2)
    snapshot = snapshot_of(run)
    note = words.about_tournament(snapshot)
    head = " | ".join(f"test {figure.title}" for figure in FIGURES.values())
    assert f"| round | champion | {head} |" in note
    assert f"| model | {head} |" in note
    for verdict in snapshot.lineages[0].verdicts:
        assert f"| {verdict.round} | {verdict.champion}" in note
    assert len(note) <= words.NOTE_LIMIT
    assert "champion" in note.splitlines()[2]


def test_a_note_before_anything_is_scored(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", settled={})
    note = words.about_tournament(snapshot_of(run))
    assert "### " not in note
    assert "Tournament **demo**" in note


def test_an_outcome_is_a_place_and_what_it_brings(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", rounds=1, references=[])
    (verdict,) = snapshot_of(run).lineages[0].verdicts
    first, last = verdict.ranking
    assert verdict.champion == ModelRef(first, 1)
    assert words.outcome(verdict, first) == "1 of 2, new champion, seeds the next round"
    assert words.outcome(verdict, last) == "2 of 2"
    assert words.outcome(verdict, "withdrawn") == "out of the round"


def test_no_password_of_a_url_is_a_parameter():
    found = words.parameters([("tracking.uri", "http://me:secret@mlflow:5000"), ("data.source", ["s3://k:v@b/x"])])
    assert found == {"tracking.uri": "http://…@mlflow:5000", "data.source": '["s3://…@b/x"]'}
