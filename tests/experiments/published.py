"""`python -m tests.experiments.published NAME`: what an experiment of configs/experiments came to, as Markdown.

It reads the run directories of its two forms, runs/published/NAME-equal and NAME-whole, and writes what it says into
docs/experiments.md too, where that has marks for it.
"""

import argparse
import tempfile
from pathlib import Path

from cluster.store import LOCAL
from tests.experiments.naive import judge
from tests.experiments.published_field import ancestry, costs, data, generations, who_won
from tests.experiments.published_forms import RUNS, forms_of, made_by
from tests.experiments.published_losses import at_equal_tokens, cut, losses, rises, rules, titles, validation
from tests.experiments.published_picture import IMAGES, draw_published
from tests.experiments.table import DOCS, between_marks


def text(name: str, runs: Path = RUNS) -> str:
    """Everything that is said of an experiment whose run directories lie in `runs`."""
    forms = forms_of(name, runs)
    with tempfile.TemporaryDirectory() as scratch:
        judged = [
            (title, judge(held.snapshot, lineage, Path(scratch) / held.form))
            for held in forms
            for title, lineage, _ in held.lineages
        ]
    lines = [
        "Test loss after each competition, in nats per completion token, with a 95 % interval over test rows, and in"
        f" brackets bits per byte. {made_by(forms)}",
        "",
        *losses(forms),
        *at_equal_tokens(forms),
        "What `max_tokens` leaves of the test rows; bits per byte are over the text that is left:",
        "",
        *cut(forms),
        "The champions' lines, in brackets what a soup blends:",
        "",
        *ancestry(forms),
        "The champion's loss after each round, validation / test, with a star where the title changed hands:",
        "",
        *validation(forms),
        "Titles, with the gain over the champion before on each kind of rows:",
        "",
        *titles(forms),
        "The same entries by other rules, with test rows as the judge:",
        "",
        *rules(judged),
        "Where test loss rises again, from round 0, the base; of published curves the first competition is that:",
        "",
        *rises(name, forms, judged),
        "Who won:",
        "",
        *who_won(forms),
        *costs(forms),
        *data(forms[0]),
        *generations(forms),
    ]
    return "\n".join(lines)


def main() -> None:
    """Print it, keep it beside the runs, and put it where the docs have marks for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    name = parser.parse_args().name
    told = text(name)
    LOCAL.write_text(RUNS / f"{name}.md", told)
    DOCS.write_text(between_marks(DOCS.read_text(), name, "make published", lambda name: told))
    draw_published([(one.form, one.board) for one in forms_of(name)], IMAGES / f"published-{name}.png")
    print(told)


if __name__ == "__main__":
    main()
