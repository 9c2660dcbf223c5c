"""A whole budget and what sharing it out follows from: the rules, the data, and the rounds that are over."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from cluster.records import Record, Settings
from competitors.contract import Allowance, RecipeBase
from competitors.sft.recipe import SftRecipe
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Roster

LEFT_OVER = 0.01
"""The share of a whole budget from which on it is said that it is left over: less is what no whole step fitted
into."""


class Allocation(Settings):
    """How a whole budget is shared out among competitors and rounds."""

    kind: Literal["race", "equal"] = "race"
    share: float = Field(0.005, gt=0, lt=0.5, description="of the whole budget, for each miniature")
    step_tokens: int | None = Field(None, ge=1, description="of a step, at least; none: a sequence, 2,048 on a GPU")
    climb: bool = True
    margin_nats: float = Field(0.01, ge=0, description="a doubling of the rate has to lead by so much to be taken")
    keep_optimizer: bool = True
    several_lines: bool = Field(True, description="where the data is short, and soups of their ends")
    workers: Annotated[int, Field(ge=1)] | Literal["auto"] = Field(
        "auto", description="of a line, at most; auto: as many GPUs as there are, and on CPUs as many as it asks for"
    )


class Corpus(Record):
    """corpus.json: how much there is to train on, for one base's tokenizer."""

    rows: int
    """That have a completion within max_tokens."""
    tokens: int
    """Of one pass over them, prompts included."""
    completion_bytes: int | None = None
    """Of UTF-8, of the completions of one pass; None in a run that was begun before they were counted."""

    @property
    def tokens_per_row(self) -> float:
        """On average."""
        return self.tokens / self.rows


@dataclass(frozen=True)
class Whole:
    """A whole budget of one lineage: training tokens, or seconds of a device."""

    total: float
    unit: Literal["tokens", "device_seconds"] = "tokens"

    def allowance(self, amount: float, recipe: RecipeBase, has_gpus: bool) -> Allowance:
        """`amount` of it for one entry."""
        if self.unit == "tokens":
            return Allowance(tokens=max(1, int(amount)))
        return Allowance(seconds=amount / (recipe.resources.resolved(has_gpus).devices or 1.0))


@dataclass(frozen=True)
class Past:
    """A round that is over, as far as it matters for those that follow."""

    roster: Roster
    losses: Mapping[str, float]
    """Validation losses of the scored entries."""
    trunk: ModelRef
    """What the next round goes on from."""
    tied: Sequence[str]
    """Of a race: those that its winner does not beat beyond doubt, best first."""
    spent: Mapping[str, float]
    """By every entry, in the budget's unit."""
    tokens: Mapping[str, int]
    found: Mapping[str, SftRecipe]
    """What a search has found."""


@dataclass(frozen=True)
class Lead:
    """How far one entry's loss lies below another's on the same rows, in nats; `low` is its one-sided bound."""

    mean: float
    low: float
