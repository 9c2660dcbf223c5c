"""What became of one arm on one data set with one seed: a JSON file, and whether it is there is whether it is done."""

from dataclasses import dataclass
from pathlib import Path

from cluster.errors import UserError
from cluster.records import Record
from cluster.store import LOCAL


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


def path_of(folder: Path, setting: str, seed: int, arm: str) -> Path:
    """Where a result lies below the size's folder."""
    return folder / setting / f"seed-{seed}" / f"{arm}.json"


def read_all(folder: Path) -> list[Result]:
    """Every result that is there. UserError where results of one data set and seed are of different rows."""
    results = [Result.read(path) for path in sorted(folder.glob("*/seed-*/*.json"))]
    splits: dict[tuple[str, int], str] = {}
    for one in results:
        if splits.setdefault((one.setting, one.seed), one.fingerprint) != one.fingerprint:
            raise UserError(
                f"{folder / one.setting}/seed-{one.seed}: of different splits: remove those of the older code"
            )
    return results


RECORDED = Path(__file__).parent / "recorded"
"""The results behind the tables of docs/experiments.md: a file for each size, with a line for each run."""


def keep(size: str, folder: Path) -> None:
    """Put the results of a size on record."""
    lines = [f"{result.model_dump_json()}\n" for result in read_all(folder)]
    LOCAL.write_text(RECORDED / f"{size}.jsonl", "".join(lines))


def take(size: str, folder: Path) -> None:
    """Take what is on record for done."""
    file = RECORDED / f"{size}.jsonl"
    for line in file.read_text().splitlines() if file.exists() else ():
        result = Result.model_validate_json(line)
        result.write(path_of(folder, result.setting, result.seed, result.arm))
