"""The records that the tournament itself leaves in the run directory, beside the competitors' and the scorecards."""

from functools import cached_property
from typing import ClassVar, Literal

from cluster.records import Reason, Record, StoredPath
from evaluation.compare import Tail
from evaluation.submissions.examination import NEAR
from orchestrator.field.model_ref import ModelRef


class ModelFolder(Record):
    """seed.json, champion.json: a full model folder and which model it is. In round 0, the base."""

    model: ModelRef
    path: StoredPath | None
    """None for a base: where that lies the config says."""
    sha256: str
    continuation: StoredPath | None = None


class Inspection(Record):
    """inspection.json: whether a submission may be scored, and if not, why."""

    form: Literal["full", "adapter"]
    reason: Reason = ""
    """Why it was rejected, here, when it was scored, or when it was to be promoted; empty where it was not."""
    content: str = ""
    """A hash of its values that knows neither files nor dtypes: two submissions of one content are one model."""
    distance: float | None = None
    """How far it moved the weights that it changes, relative to their length; None where that cannot be told."""
    nearest: ModelRef | None = None
    """Of a program's submission: the model of its lineage whose losses are most like its own."""
    apart: float | None = None
    """How far it lies from that one, by how far they moved: see evaluation/submissions/nearness.py."""

    @property
    def passed(self) -> bool:
        """Whether it was not rejected."""
        return not self.reason

    @property
    def note(self) -> str:
        """What is said of one that passed: whether it is all but its seed."""
        if self.distance is None or self.distance >= NEAR or not self.passed:
            return ""
        return f"all but its seed: moved its weights by {self.distance:.1g} of their length"


class Lost(Record):
    """lost.json: what tries of an entry came to whose folder was removed, as it started anew."""

    tokens: int = 0
    seconds: float = 0.0


class Raced(Record):
    """raced.json: what an entry's checkpoints came to at the rungs of a race, for those that get there later."""

    losses: dict[float, float]
    """Nats per token on the rows that race, by share of the budget."""


class Sample(Record):
    """One prompt, what is right, and what the model writes."""

    prompt: str
    expected: str
    completion: str


class Samples(Record):
    """samples.json."""

    samples: list[Sample]
    reason: Reason = ""
    """Why there are none, where there should be some."""


class Standing(Record):
    """One entry against the champion it met, on the rows that choose."""

    competitor: str
    validation_loss: float
    metric: float | None = None
    """What the figure comes to that chose, where that is not the loss."""
    improvement: float
    """Nats per token below the champion's loss, or by how much the metric that chooses is better."""
    skewness: float = 0.0
    """Of that gain, over groups of rows."""
    worst: float = 0.0
    """By how many nats the group that loses most falls behind that gain."""

    @property
    def tail(self) -> Tail:
        """On the side of the rows that lose."""
        return Tail(self.skewness, self.worst)


class Guarded(Record):
    """What a figure that is looked after came to on the rows that prove."""

    metric: str
    before: float
    """The champion's."""
    after: float
    max_drop: float
    kept: bool
    """Whether it is worse by no more than that."""


class Proof(Record):
    """A round's winner against the champion on the rows that prove, which chose neither."""

    improvement: float
    """Nats per token below the champion's loss, or by how much the metric that chooses is better."""
    improvement_low: float
    """Its one-sided lower bound."""
    level: float
    """The chance with which this bound may be too high."""
    margin_nats: float
    rows: int
    groups: int
    """Of rows that belong together, as those of one prompt do."""
    doubt: str = ""
    """Why these rows prove nothing, however large the gain; empty where they can."""
    unseen: float = 0.0
    """What the bound allows, in nats per token, for rows as bad as its own or its field's worst that were not met."""
    guardrails: list[Guarded] = []

    @property
    def takes_the_title(self) -> bool:
        """Whether the winner is better beyond doubt, and worse in nothing that is looked after."""
        return self.is_proven and all(one.kept for one in self.guardrails)

    @property
    def is_proven(self) -> bool:
        """Whether the winner is better beyond doubt."""
        return not self.doubt and self.improvement_low > self.margin_nats


class RecipeStanding(Record):
    """A recipe that is repeated, by what its runs came to in one round on the rows that choose."""

    recipe: str
    runs: int
    """That were entered."""
    losses: list[float]
    """Of those that were scored."""
    validation_loss: float | None = None
    """Their mean; None where none was scored."""
    deviation: float | None = None
    """Their standard deviation; None of fewer than two."""
    behind: float | None = None
    """How far the mean lies above that of the first recipe; None of that one, and of fewer than two runs."""
    behind_low: float | None = None
    behind_high: float | None = None
    """Where that may lie with other runs and on other rows, at the confidence asked for all pairs together."""
    words: str = ""


class Verdict(Record):
    """verdict.json: how a round ended. The last record of a round: where it is, all the others are."""

    FORMAT: ClassVar[int] = 3
    lineage: str
    round: int
    metric: str = "loss"
    """By which figure was chosen."""
    winner: str | None
    """Competitor with the best validation figure; None when all forfeited."""
    seed_before: ModelRef
    seed_next: ModelRef
    champion_before: ModelRef
    champion: ModelRef
    dethroned: bool
    """Whether the winner's improvement over the champion is proven, so that it takes the title."""
    proof: Proof | None
    """Of a winner that leads the champion on the rows that choose; None where nobody does."""
    spent: float
    """What this and earlier tests that proved nothing have taken of the lineage's chance of a false title."""
    validation_loss: float
    """The champion's, after this round."""
    seed_validation_loss: float
    entries: list[Standing]
    """Best first."""
    rounds_without_champion: int
    ends_lineage: bool
    tied: list[str] = []
    """Of a race for a whole budget: whom its winner does not beat beyond doubt, best first."""
    exploits: str | None = None
    """The recipe that all entries of the rounds that follow run; None while recipes are explored."""
    recipes: list[RecipeStanding] = []
    """Those that are repeated, the lowest mean loss first. All the rest of a verdict is about models."""
    reasons: list[str]

    @property
    def ranking(self) -> list[str]:
        """The scored competitors, best first."""
        return [standing.competitor for standing in self.entries]

    def standing(self, competitor: str) -> Standing | None:
        """That competitor's; None where it was not scored."""
        place = self.places.get(competitor)
        return None if place is None else self.entries[place]

    @cached_property
    def places(self) -> dict[str, int]:
        """The scored competitors, each with its place in the ranking; the best one's is 0."""
        return {one.competitor: place for place, one in enumerate(self.entries)}

    def proof_of(self, competitor: str) -> Proof | None:
        """What that competitor has proven, or tried to; of all but the winner nothing is claimed."""
        return self.proof if competitor == self.winner else None
