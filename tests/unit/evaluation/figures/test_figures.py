"""The table of figures as a whole."""

import math
import subprocess
import sys

from evaluation.figures import FIGURES


def test_names_and_columns_are_the_tables_own():
    assert list(FIGURES)[:3] == ["loss", "perplexity", "bits_per_byte"]
    assert all(name == figure.name for name, figure in FIGURES.items())
    columns = [figure.column for figure in FIGURES.values() if figure.measure]
    assert len(columns) == len(set(columns))
    assert columns[0] == "nats"


def test_every_figure_can_be_shown():
    for figure in FIGURES.values():
        assert figure.title
        assert figure.better in ("lower", "higher")
        assert [figure.text(value) for value in (None, math.nan, math.inf)] == ["–", "nan", "inf"]
        assert figure.text(0.5).startswith(("0.5", "50"))


def test_importing_the_table_does_not_import_torch():
    code = "import sys, evaluation.figures, evaluation.scorecard; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
