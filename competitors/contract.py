"""The contract: what a competitor is given (Brief), what it hands in (Submission), how it reports.

A competitor of any kind gets a brief and writes a model into `brief.output_dir`: either a full Hugging Face
model folder or a PEFT adapter over `brief.seed_model`. Until that is there, the newest
`checkpoint-<number>` folder inside it (the Hugging Face name) counts. Nothing in the brief names held-out
data.
"""

import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import Field

from cluster.records import Record, Settings
from cluster.resources import Resources
from competitors.untrusted import refuse_broken_json, refuse_odd_files

Event = dict[str, Any]
"""One line of progress.jsonl. Keys, all optional but `event` and `time`: `event` (loading, started, step, note,
checkpoint, ended), `time` (seconds since the epoch), `tokens`, `step`, `loss` (nats per completion token),
`learning_rate`, `seconds` (since the first step), `memory_megabytes`, `gpu_memory_megabytes`, `text`. A
`checkpoint` for `race_at` says at which `fraction` it is and its `folder`'s name, once that is whole."""

Report = Callable[[Event], None]


class RecipeBase(Settings):
    """What every kind of competitor has, and what the tournament asks of a recipe before it runs.

    Nothing here loads torch: it is asked when a config is checked and planned.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=60)
    resources: Resources = Resources()

    @property
    def is_gang(self) -> bool:
        """Whether `run` only coordinates: it then runs in a process without resources, and starts
        `resources.workers` processes of its own on what was reserved for them."""
        return self.resources.workers > 1

    @property
    def trains(self) -> bool:
        """Whether it spends the budget and hands in a model of its own: neither a blend nor a control."""
        return True

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


class Allowance(Record):
    """The budget of one entry in one round; whichever ends first ends it. At least one is set."""

    tokens: int | None = None
    seconds: float | None = None
    steps: int | None = None


class Ingredient(Record):
    """A submission that a soup may blend: of this round or an earlier one, inspected, on the same seed."""

    label: str
    """`competitor@round`."""
    folder: Path
    form: Literal["full", "adapter"]
    seed_sha256: str
    continuation: Path | None


class Brief(Record):
    """What a competitor gets: brief.json."""

    tournament: str
    lineage: str
    round: int
    competitor: str
    seed_model: Path
    seed_sha256: str
    seed_continuation: Path | None
    train_data: Path = Field(description="parquet with the columns prompt and completion, templates applied")
    max_tokens: int
    budget: Allowance
    progress: tuple[float, float] = Field(description="where this round lies in the lineage's whole budget")
    output_dir: Path
    random_seed: int
    resources: Resources
    race_at: tuple[float, ...] = Field((), description="shares of the budget at which to save a checkpoint")
    ingredients: list[Ingredient] = Field([], description="what a soup may blend; empty for every other kind")
    slice_data: Path | None = Field(None, description="for a soup: training rows that no entry trains on")

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
    reason: str
    form: Literal["full", "adapter"] | None = None
    sha256: str | None = None
    seed_sha256: str
    train_tokens: int = 0
    train_steps: int = 0
    train_seconds: float = Field(0.0, description="from the first training step")
    wall_seconds: float = Field(0.0, description="from placement, start-up included")
    device_seconds: float = Field(0.0, description="wall_seconds times the GPUs (or CPUs, without any) held")
    has_continuation: bool = False


def model_form(folder: Path) -> Literal["full", "adapter"] | None:
    """What kind of model lies in `folder`: a PEFT adapter, a full model, or None when neither is complete."""
    if (folder / "adapter_config.json").is_file() and (folder / "adapter_model.safetensors").is_file():
        return "adapter"
    weights = (folder / "model.safetensors").is_file() or (folder / "model.safetensors.index.json").is_file()
    return "full" if weights and (folder / "config.json").is_file() else None


SUBMISSION = re.compile(r".*\.(safetensors|json|model|txt|jinja)")
CODE = re.compile(r".*\.(py|bin|pt|pkl|pth)")
"""What runs code when it is loaded stays where it is, for inspection to reject the submission."""
TRAINER_STATE = re.compile(r"training_args\.bin|(optimizer|scheduler|scaler)\.pt|rng_state.*\.pth")
"""What transformers' Trainer leaves beside its models, and nobody loads."""


def settle_output(output_dir: Path) -> Literal["full", "adapter"] | None:
    """Leave the submission, and nothing but it, at the top of `output_dir`; return its form, or None.

    Without a model there, the newest complete `checkpoint-<number>` takes its place. Forfeit when there is
    anything but plain files: what a program has left is never followed out of its folder.
    """
    if not output_dir.is_dir():
        return None
    refuse_odd_files(output_dir)
    chosen = output_dir
    if model_form(output_dir) is None:
        complete = [p for p in checkpoints(output_dir) if model_form(p) is not None]
        if not complete:
            return None
        chosen = output_dir.with_name(f".{output_dir.name}.chosen")
        complete[-1].rename(chosen)
        shutil.rmtree(output_dir)
        chosen.rename(output_dir)
    for item in output_dir.iterdir():
        if item.is_dir():
            shutil.rmtree(item)
        elif TRAINER_STATE.fullmatch(item.name) or not (SUBMISSION.fullmatch(item.name) or CODE.fullmatch(item.name)):
            item.unlink()
    refuse_broken_json(output_dir)
    return model_form(output_dir)


def checkpoints(output_dir: Path) -> list[Path]:
    """The folders `checkpoint-<number>`, by number."""
    found = [(re.fullmatch(r"checkpoint-([0-9]+)", p.name), p) for p in output_dir.glob("checkpoint-*") if p.is_dir()]
    return [p for _, p in sorted((int(match[1]), p) for match, p in found if match)]


def reporter(path: Path) -> Report:
    """A report function that appends each event as one JSON line to `path`, stamped with the time."""

    def report(event: Event) -> None:
        with path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({**event, "time": time.time()}) + "\n")

    return report


def read_events(path: Path) -> list[Event]:
    """The events in a progress.jsonl; a last line cut off by a crash is left out."""
    return parse_events(path.read_bytes().rpartition(b"\n")[0]) if path.exists() else []


def parse_events(lines: bytes) -> list[Event]:
    """The events in whole lines. A line that is none is passed over: a user's own program may write anything."""
    events = []
    for line in lines.splitlines():
        try:
            value = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(value, dict) and "event" in value:
            events.append(value)
    return events
