"""scorecard.json: what scoring a model on the held-out splits comes to. The rows are in losses.parquet beside it."""

from typing import Any, ClassVar, Literal, Self

from pydantic import SerializerFunctionWrapHandler, model_serializer, model_validator

from cluster.records import Record
from cluster.rounding import Rounding
from evaluation.figures import FIGURES
from evaluation.results import RowResults


class SplitScore(Record):
    """One model's score on one split. In JSON the figures stand beside the counts: `{"loss": …, "rows": …}`."""

    figures: dict[str, float]
    """By the names of `evaluation.figures`. A record of another version may have one more or one less."""
    rows: int
    tokens: int
    bytes: int
    rows_cut_away: int
    """Rows that count zero tokens because `max_tokens` cut their whole completion away."""
    rows_cut_short: int
    """Rows of which `max_tokens` cut a part of the completion."""

    @classmethod
    def of(cls, results: RowResults, cut_short: int) -> Self:
        """Sum up per-row results."""
        counted = results.tokens > 0
        return cls(
            figures={name: figure.compute(results) for name, figure in FIGURES.items() if figure.is_in(results)},
            rows=len(results.tokens),
            tokens=int(results.tokens.sum()),
            bytes=int(results.bytes[counted].sum()),
            rows_cut_away=int((~counted).sum()),
            rows_cut_short=cut_short,
        )

    @model_validator(mode="before")
    @classmethod
    def _gather_figures(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "figures" in data:
            return data
        counts = {key: value for key, value in data.items() if key in cls.model_fields}
        figures = {key: value for key, value in data.items() if key not in cls.model_fields}
        if "loss" not in figures:
            raise ValueError("loss is missing")
        return {**counts, "figures": figures}

    @model_serializer(mode="wrap")
    def _spread_figures(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        counts = handler(self)
        return {**counts.pop("figures"), **counts}

    @property
    def loss(self) -> float:
        """Nats per completion token."""
        return self.figures["loss"]

    @property
    def perplexity(self) -> float:
        """exp(loss)."""
        return self.figures["perplexity"]

    @property
    def bits_per_byte(self) -> float:
        """Bits per byte of completion text."""
        return self.figures["bits_per_byte"]


class Scorecard(Record):
    """scorecard.json: one model on the held-out rows: all on those that choose, few on those that only report."""

    FORMAT: ClassVar[int] = 2
    model: str
    model_sha256: str
    prompt: Literal["plain", "chat"] = "plain"
    stop: str | None = None
    """The token that ends every completion and counts as one of it; None where the tokenizer has none."""
    validation: SplitScore
    proof: SplitScore | None = None
    """Of the base and of winners that lead, which have to prove it."""
    test: SplitScore | None = None
    """Of champions, bases and references alone: who could see an entry's would come to choose by it."""
    device: str
    dtype: str
    merge: Rounding | None = None
    """Of an adapter, which is scored as it would be promoted: what storing it takes from its update."""
    seconds: float
    """Wall time of the scoring of the validation rows, loading the model included."""

    @property
    def test_figures(self) -> dict[str, float]:
        """Those of the test rows by name; none where the model is not scored on them."""
        return {} if self.test is None else self.test.figures

    @property
    def reported(self) -> SplitScore:
        """The test rows of a model that is known to be scored on them."""
        assert self.test is not None, f"{self.model} is not scored on the test rows"
        return self.test
