"""The sections of a tournament's config but for those that lie beside what they configure (recipes, the field)."""

from typing import Annotated, Literal

from pydantic import Discriminator, Field, Tag, field_validator, model_validator

from cluster.prices import ACCELERATORS
from cluster.records import Settings, nearest
from cluster.resources import CPU, GPU, Resources
from competitors.contract import Allowance
from evaluation.harness import HarnessTask
from orchestrator.field.whole_budget import Whole

NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Validation(Settings):
    """The held-out rows of one round, and whether each round has others to choose by."""

    rows: int = Field(1000, ge=2)
    rotate: bool = Field(False, description="each round chooses by rows that no round before it has looked at")


class Data(Settings):
    """Where the rows come from, how a row becomes prompt and completion, how many are held out."""

    source: str | list[str]
    prompt: str
    completion: str
    max_tokens: int = Field(1024, ge=8)
    validation: Annotated[
        Annotated[int, Field(ge=2), Tag("rows")] | Annotated[Validation, Tag("more")],
        Discriminator(lambda value: "more" if isinstance(value, dict | Validation) else "rows"),
    ] = Field(1000, description="one half chooses, the other proves titles; or those of one round, with `rotate`")
    test: int = Field(1000, ge=1)
    group: str | None = Field(None, min_length=1, description="a column: rows with the same value stay together")
    near_duplicates: Literal["remove", "keep"] = Field(
        "remove", description="training rows that nearly say what a held-out row says"
    )

    @property
    def validation_rows(self) -> int:
        """That choose or prove in one round."""
        return self.validation if isinstance(self.validation, int) else self.validation.rows

    @property
    def rotates(self) -> bool:
        """Whether each round has rows of its own to choose by."""
        return isinstance(self.validation, Validation) and self.validation.rotate

    @property
    def sources(self) -> list[str]:
        """Each source, in order."""
        return [self.source] if isinstance(self.source, str) else self.source


class Lineage(Settings):
    """A base model that runs its own rounds."""

    name: str = Field(pattern=NAME, max_length=60)
    base: str


class Reference(Settings):
    """A horizontal line in the chart: a model that is only scored, or a published series that is only drawn."""

    name: str = Field(pattern=r"^[^.]", max_length=80)
    model: str | None = None
    prompt: Literal["plain", "chat"] = "plain"
    published: list[float] | None = Field(None, min_length=1, description="test loss by round, round 0 first")

    @model_validator(mode="after")
    def _one_of_two(self) -> "Reference":
        if (self.model is None) == (self.published is None):
            raise ValueError("give either model or published")
        return self


class Budget(Settings):
    """Per competitor and round, whichever ends first: `tokens`, `minutes`, `steps`. Or the whole of each lineage,
    everything that anybody trains in it: `total_tokens` or `total_gpu_hours`. Start-up is not charged."""

    tokens: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    steps: int | None = Field(None, ge=1)
    total_tokens: int | None = Field(None, ge=1)
    total_gpu_hours: float | None = Field(None, gt=0)

    @model_validator(mode="after")
    def _one_form(self) -> "Budget":
        given = [name for name, value in self.model_dump().items() if value is not None]
        whole = [name for name in given if name.startswith("total_")]
        if not given:
            raise ValueError("give total_tokens or total_gpu_hours, or at least one of tokens, minutes and steps")
        if whole and len(given) > 1:
            other = next(name for name in given if name != whole[0])
            raise ValueError(f"{whole[0]} is a whole budget: give it or {other}, not both")
        return self

    @property
    def whole(self) -> Whole | None:
        """The whole budget of a lineage; None where each entry has its own."""
        if self.total_tokens is not None:
            return Whole(self.total_tokens)
        return None if self.total_gpu_hours is None else Whole(self.total_gpu_hours * 3600, "device_seconds")

    @property
    def allowance(self) -> Allowance:
        """That of each entry in the units of the contract; without limits where there is a whole budget."""
        seconds = None if self.minutes is None else self.minutes * 60
        return Allowance(tokens=self.tokens, seconds=seconds, steps=self.steps)


class Limits(Settings):
    """What keeps anything that hangs from holding up a round.

    An entry is ended from outside when it has not begun training after `startup_minutes`, is `grace_minutes`
    over its minutes, or has not reported for `silence_minutes`; its last checkpoint is then its submission. What
    an evaluator is asked for (inspecting, scoring, merging, sampling) is ended after `evaluation_minutes` and
    tried again elsewhere.

    `cost` is what the whole tournament may cost by `cluster.prices`: it stops, resumable, before it has cost more.
    """

    startup_minutes: float = Field(30, gt=0)
    grace_minutes: float = Field(5, gt=0)
    silence_minutes: float = Field(30, gt=0)
    evaluation_minutes: float = Field(120, gt=0)
    cost: float | None = Field(None, gt=0, description="of the whole tournament, by cluster.prices")


class Guardrail(Settings):
    """A figure that a new champion may not be worse in by more than `max_drop`, on the rows that prove."""

    metric: str
    max_drop: float = Field(0.0, ge=0, description="in the figure's own unit, as 0.02 of a share")


class Selection(Settings):
    """How winners and champions are chosen: by the loss, or by another figure or task."""

    metric: str = "loss"
    guardrails: list[Guardrail] = []
    confidence: float = Field(0.95, gt=0.5, lt=1)
    margin_nats: float = Field(0.0, ge=0)
    patience: int | None = Field(None, ge=1, description="rounds without a new champion that end a lineage")
    seed: Literal["winner", "champion"] = "winner"


class Evaluation(Settings):
    """The evaluators. With 0 cpus and no GPU they share cores with the trainers instead of reserving their own, and
    `at_once` of them run side by side."""

    resources: Resources = Resources(cpus=0)
    at_once: int = Field(2, ge=1)
    batch_tokens: int = Field(16_384, ge=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    samples: int = Field(3, ge=0, description="test prompts whose completions the report shows before and after")
    sample_tokens: int = Field(64, ge=1)
    written_rows: int = Field(
        0, ge=0, description="rows of each split that a model also writes the completion of: exact match and ROUGE-L"
    )
    written_tokens: int = Field(64, ge=1, description="how much of it at most")
    harness: list[HarnessTask] = Field([], description="tasks of the lm-evaluation-harness, each a figure by its name")
    harness_tasks: str | None = Field(None, description="a folder with tasks of your own, as YAML for the harness")


OBJECT_STORES = ("s3://", "gs://", "az://", "file://")
"""The last is a folder that is used as an object store, and need not be shared but by those who write to it."""


class Cluster(Settings):
    """`address` as for ray.init: nothing for RAY_ADDRESS or else a local Ray, `auto` for a running one."""

    address: str | None = None
    storage: str | None = Field(
        None, description="a folder that all nodes share, or s3://bucket/…, gs://bucket/…, az://container/…"
    )
    prices: dict[str, Annotated[float, Field(gt=0)]] = Field(
        {}, description="of an hour of a GPU by Ray's name for its kind; GPU: any other; CPU: of what holds no GPU"
    )

    @field_validator("storage")
    @classmethod
    def _known(cls, value: str | None) -> str | None:
        if value is not None and "://" in value and not value.startswith(OBJECT_STORES):
            raise ValueError(f"{value}: give a folder that all nodes share, or one of {', '.join(OBJECT_STORES)}")
        return value

    @field_validator("prices")
    @classmethod
    def _of_known_devices(cls, prices: dict[str, float]) -> dict[str, float]:
        for kind in prices:
            if kind not in (known := [*ACCELERATORS, GPU, CPU]):
                raise ValueError(f'there is no kind of device "{kind}"{nearest(kind, known)}')
        return prices

    @property
    def bucket(self) -> str | None:
        """The object store, where it is one; a folder is used as it is."""
        return self.storage if self.storage is not None and "://" in self.storage else None


class Tracking(Settings):
    """MLflow. Without `uri` a SQLite store beside the run directories. `json_lines` is a path, or true for
    events.jsonl in the run directory."""

    uri: str | None = None
    experiment: str | None = None
    json_lines: bool | str = False


class Racing(Settings):
    """`at` are shares of the budget at which running entries are scored on `rows` validation rows."""

    at: list[float] = Field(min_length=1)
    keep: float = Field(0.5, gt=0, lt=1)
    rows: int = Field(200, ge=1)

    @field_validator("at")
    @classmethod
    def _rising(cls, value: list[float]) -> list[float]:
        if any(not 0 < x < 1 for x in value) or value != sorted(set(value)):
            raise ValueError("give rising shares of the budget between 0 and 1, such as [0.25, 0.5]")
        return value
