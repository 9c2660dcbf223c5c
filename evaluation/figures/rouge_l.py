"""ROUGE-L (Lin 2004): how many of the completion's words the model writes in their order, and the reverse.

The F-measure of the longest common subsequence, the mean over rows, as rouge-score computes it, over words in lower
case. Letters of all scripts make words; a script without spaces between them makes long ones.
"""

import re
from functools import cache
from typing import Any

from evaluation.figures.figure import Figure, of_texts


class _Words:
    """rouge-score's own would leave nothing of a text that is not written in ASCII."""

    def tokenize(self, text: str) -> list[str]:
        return re.findall(r"\w+", text.lower())


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


def overlap(written: str, completion: str) -> float:
    """The F-measure of a row, 0 to 1; of two texts without a word, 0."""
    return float(_scorer().score(completion, written)["rougeL"].fmeasure)


FIGURE = Figure("rouge_l", "ROUGE-L", "", "higher", of_texts("overlap"), ".3f", judge=overlap, column="overlap")
