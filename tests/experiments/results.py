"""What became of one arm on one data set with one seed, and what was run with: a JSON file below `runs/`, and a line
of `recorded/` once a table was made of it. What is in either is done.
"""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from cluster.errors import UserError
from cluster.records import Record
from cluster.store import LOCAL
from tests.experiments.sizes import SIZES, RunWith, Setting, digest

Key = tuple[str, int, str, str]
"""A run: setting, seed, arm, and the digest of what it was run with."""


class Point(Record):
    """The best model so far, chosen on validation rows, after so many tokens that everybody together trained on."""

    tokens: int
    validation: float
    test: float


class Result(Record):
    """One arm. Losses are nats per completion token."""

    setting: str
    seed: int
    arm: str
    run_with: RunWith
    """As the setting has it. What was run with anything else is not this run."""
    finished: datetime
    fingerprint: str
    """Of the splits: what is compared has to be on the same rows."""
    tokens: int
    """Real tokens that anybody trained on."""
    padded_tokens: int
    """The same with padding: what a device computes."""
    seconds: float
    validation: float
    test: float
    best_checkpoint: Point | None = None
    """For a recipe alone: where its validation loss was lowest."""
    curve: list[Point] = []
    chosen: str = ""
    """What was chosen on the way, in words."""

    @property
    def key(self) -> Key:
        """What makes it this run and no other."""
        return self.setting, self.seed, self.arm, digest(self.run_with)


@dataclass
class Outcome:
    """What an arm comes to. Tokens are said where they were not trained on in this process, which counts its own."""

    validation: float
    test: float
    tokens: int = 0
    padded_tokens: int = 0
    best_checkpoint: Point | None = None
    curve: tuple[Point, ...] = ()
    chosen: str = ""


RUNS = Path(__file__).parents[2] / "runs" / "experiments"
"""The results of this checkout, a folder for each size."""
RECORDED = Path(__file__).parent / "recorded"
"""The results behind the tables of docs/experiments.md: a file for each size, with a line for each run."""


def path_of(size: str, setting: Setting, seed: int, arm: str) -> Path:
    """Where the result of a run goes."""
    return RUNS / size / f"{setting.name}-{digest(setting.run_with)}" / f"seed-{seed}" / f"{arm}.json"


def done(size: str) -> list[Result]:
    """Every run of a size that is done, on record or here; where it is both, or was run again, what ended last.

    UserError where results of one data set and seed are of different rows, BrokenRecord where one cannot be read.
    """
    here = [Result.read(path) for path in sorted((RUNS / size).glob("*/seed-*/*.json"))]
    newest = {one.key: one for one in sorted([*_on_record(size), *here], key=lambda one: one.finished)}
    splits: dict[tuple[str, int, str], str] = {}
    for one in newest.values():
        if splits.setdefault((one.setting, one.seed, digest(one.run_with)), one.fingerprint) != one.fingerprint:
            raise UserError(
                f"{one.setting} seed {one.seed}: its results, below {RUNS / size} and in {_file(size)}, are of"
                " different splits: remove those of the older data or code"
            )
    return sorted(newest.values(), key=lambda one: one.key)


def keep(size: str) -> None:
    """Put on record what is done of a size, beside what is there, unless it is run on each machine anew."""
    if SIZES[size].on_record:
        LOCAL.write_text(_file(size), "".join(f"{one.model_dump_json()}\n" for one in done(size)))


def _on_record(size: str) -> list[Result]:
    file = _file(size)
    lines = file.read_text().splitlines() if file.exists() and SIZES[size].on_record else []
    return [Result.model_validate_json(line) for line in lines]


def _file(size: str) -> Path:
    return RECORDED / f"{size}.jsonl"
