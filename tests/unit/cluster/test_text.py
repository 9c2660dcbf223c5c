"""Text of others."""

import pytest

from cluster.text import LENGTH, as_code, first_line, harmless, plain, said_by


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ("one\n two\t\r\nthree ", "one two three"),
        ("\x1b[31mred\x07", "[31mred"),
        ("back\u202ewards\u200b", "back wards"),
        ("naïve 模型", "naïve 模型"),
        ("", ""),
        (KeyError("x"), "'x'"),
    ],
)
def test_nothing_that_moves_a_cursor_is_left(raw: object, words: str):
    assert plain(raw) == words


def test_no_more_than_a_line_however_much_there_is():
    assert plain("x" * LENGTH) == "x" * LENGTH
    assert plain("x" * 10**6) == "x" * (LENGTH - 1) + "…"
    assert plain("one two", length=5) == "one …"


def test_a_reason_is_no_markup():
    assert harmless("[/bold] <b>x</b> \x1b[31m\n" + "y" * 10**6)[:26] == "(/bold) ‹b›x‹/b› (31m yyyy"
    assert len(harmless("y" * 10**7)) == LENGTH
    assert harmless("pip install this[gpu], x[/red] y[a b]") == "pip install this[gpu], x(/red) y(a b)"


def test_code_cannot_be_left():
    assert as_code("hub/llama-3b") == "`hub/llama-3b`"
    assert as_code("a`b``c") == "``` a`b``c ```"


def test_what_an_error_says_in_a_line():
    assert first_line(ValueError("\n one\ntwo")) == "one"
    assert (first_line(ValueError()), said_by(ValueError()), said_by(ValueError("one\ntwo"))) == (
        "",
        "ValueError",
        "one",
    )
