"""The text that the built-in bases learn from."""

from competitors.builtin.corpus import corpus


def test_corpus_is_statements_and_fixed() -> None:
    texts = corpus(0, 200)
    assert texts == corpus(0, 200)
    assert texts != corpus(1, 200)
    assert not any(mark in text for text in texts for mark in "?{}\n")
