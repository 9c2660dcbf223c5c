"""The contract: what a competitor is given (Brief), what it hands in (Submission), how it reports.

A competitor of any kind gets a brief and writes a model into `brief.output_dir`: either a full Hugging Face
model folder or a PEFT adapter over `brief.seed_model`. Until that is there, the newest
`checkpoint-<number>` folder inside it (the Hugging Face name) counts. Nothing in the brief names held-out
data.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from cluster.records import Reason, Record, Settings, StoredPath
from cluster.resources import Resources, Shape
from competitors.events import Report
from competitors.output import Form

__all__ = ["USED_ITS_BUDGET", "Allowance", "Brief", "Ingredient", "RecipeBase", "Report", "Submission"]

USED_ITS_BUDGET = "used its budget"
"""How a training ended that has nothing else to say."""


class RecipeBase(Settings):
    """What every kind of competitor has, and what the tournament asks of a recipe before it runs.

    Nothing here loads torch: it is asked when a config is checked and planned.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)
    resources: Resources = Resources()
    repeat_of: str | None = Field(
        None, description="what this is one run of, each from another random seed; `repeats` writes it out"
    )

    @property
    def is_gang(self) -> bool:
        """Whether `run` only coordinates: it then runs in a process without resources, and starts
        `resources.workers` processes of its own on what was reserved for them."""
        return self.resources.workers > 1

    @property
    def hands_on_files(self) -> bool:
        """Whether it hands workers of its own the files they need (`cluster.bucket.spreading`), and has what they
        write. If not, they need a disk that all of them see, and stand on one node where nodes share none."""
        return False

    def shape(self, has_gpus: bool) -> Shape:
        """What it holds while it runs, on a cluster with or without GPUs."""
        shape = Shape.of("trainer", self.resources, has_gpus, self.is_gang)
        return replace(shape, one_folder=self.is_gang and not self.hands_on_files)

    @property
    def trains(self) -> bool:
        """Whether it spends the budget and hands in a model of its own: neither a blend nor a control."""
        return True

    @property
    def is_program(self) -> bool:
        """Whether a program of the user's makes what it hands in, which may then be anything: another's model, too."""
        return False

    @property
    def summary(self) -> str:
        """The recipe in a few words."""
        return ""

    @property
    def needs_gpu(self) -> str | None:
        """Why this recipe cannot run on a CPU, in words; None when it can."""
        return None

    def check(self) -> None:
        """Raise UserError, naming the key, for what is wrong with the recipe beyond its form: a program or a
        module that is not there. Called on a `located` recipe, before anything starts."""

    def located(self, config_folder: Path) -> Self:
        """The recipe with its relative paths made absolute: they are meant from the config's folder."""
        return self

    def kept_from(self, places: Sequence[Path]) -> Self:
        """The recipe for an entry that is not to see `places`, where held-out rows may lie: what of them its own
        settings would show is hidden. Only a kind with a sandbox can; a kind that runs trusted code is what it is."""
        return self


OF_EVERY_KIND = {*RecipeBase.model_fields, "kind"}
"""Keys that say what a recipe is and where it runs, not how it trains: nothing that is searched or evolved."""


class Allowance(Record):
    """The budget of one entry in one round; whichever ends first ends it. At least one is set."""

    tokens: int | None = None
    seconds: float | None = None
    steps: int | None = None


class Ingredient(Record):
    """A submission that a soup may blend: of this round or an earlier one, inspected, on the same seed."""

    label: str
    """`competitor@round`."""
    folder: StoredPath
    form: Form
    seed_sha256: str
    continuation: StoredPath | None


class Brief(Record):
    """What a competitor gets: brief.json. Write it with the run directory as root, and its paths move with that."""

    tournament: str
    lineage: str
    round: int
    competitor: str
    seed_model: StoredPath
    seed_sha256: str
    seed_continuation: StoredPath | None
    train_data: StoredPath = Field(description="parquet with the columns prompt and completion, templates applied")
    max_tokens: int
    budget: Allowance
    progress: tuple[float, float] = Field(description="where this round lies in the lineage's whole budget")
    output_dir: StoredPath
    random_seed: int
    resources: Resources
    race_at: tuple[float, ...] = Field((), description="shares of the budget at which to save a checkpoint")
    ingredients: list[Ingredient] = Field([], description="what a soup may blend; empty for every other kind")
    slice_data: StoredPath | None = Field(None, description="for a soup: training rows that no entry trains on")
    attempt: int = Field(
        1, ge=1, description="which try of the same entry this is; what an earlier one saved lies in the output folder"
    )

    @property
    def works_in(self) -> Path:
        """The entry's folder, which holds all that it writes."""
        return self.output_dir.parent

    @property
    def continuation_dir(self) -> Path:
        """Where a competitor may leave what whoever goes on from it can pick up."""
        return self.output_dir.parent / "continuation"

    @property
    def progress_file(self) -> Path:
        """The JSON lines that a competitor reports to."""
        return self.output_dir.parent / "progress.jsonl"

    @property
    def running_file(self) -> Path:
        """There while processes that the competitor started may still write to its output."""
        return self.output_dir.parent / "running"

    @property
    def scratch_dir(self) -> Path:
        """What a kind needs only while it runs; removed when the entry is settled."""
        return self.output_dir.parent / "scratch"

    @property
    def stop_file(self) -> Path:
        """Appears when the tournament wants the entry to end; holds the reason. Looked for by kinds that can."""
        return self.output_dir.parent / "stop"

    @property
    def log_file(self) -> Path:
        """What a competitor prints and logs."""
        return self.output_dir.parent / "log.txt"


class Submission(Record):
    """What became of an entry: submission.json. A forfeit has a reason and no model."""

    competitor: str
    kind: str
    status: Literal["delivered", "forfeit"]
    reason: Reason
    form: Form | None = None
    sha256: str | None = None
    seed_sha256: str
    train_tokens: int = 0
    lost_tokens: int = Field(0, description="trained and lost with a process, then trained again")
    train_steps: int = 0
    train_seconds: float = Field(0.0, description="from the first training step")
    wall_seconds: float = Field(0.0, description="from placement, start-up included")
    device_seconds: float = Field(0.0, description="wall_seconds times the GPUs (or CPUs, without any) held")
    has_continuation: bool = False
