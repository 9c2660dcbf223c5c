"""What an entry starts from: the round's seed, or a submission that it goes on from, on what that stood on."""

from pathlib import Path

from cluster.errors import BrokenRecord
from competitors.contract import Submission
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import RosterEntry
from orchestrator.record.records import ModelFolder
from orchestrator.record.run_directory import RunDirectory


def start_of(run: RunDirectory, lineage: str, entry: RosterEntry, seed: ModelFolder, base: ModelFolder) -> ModelFolder:
    """The model that `entry` stands on, and the continuation that it goes on with.

    One whose submission left none, as a checkpoint does that was submitted for it, starts from the round's seed.
    """
    if entry.continues is None:
        return seed if _is_there(seed.continuation) else seed.model_copy(update={"continuation": None})
    continuation = run.scores(lineage, entry.continues) / "continuation"
    if not _is_there(continuation):
        return seed.model_copy(update={"continuation": None})
    return stands_on(run, lineage, entry.continues, base).model_copy(update={"continuation": continuation})


def _is_there(continuation: Path | None) -> bool:
    return continuation is not None and (continuation / "continuation.json").is_file()


def stands_on(run: RunDirectory, lineage: str, model: ModelRef, base: ModelFolder) -> ModelFolder:
    """The model that a submission was trained from, by the hash that it names: the base, or the seed of a round."""
    file = run.scores(lineage, model) / "submission.json"
    submission = run.read(Submission, file)
    if submission is None:
        raise BrokenRecord(f"{file}: is missing, though later rounds rest on it")
    if submission.seed_sha256 == base.sha256:
        return base
    for number in range(model.round - 1, 0, -1):
        seed = run.read(ModelFolder, run.round(lineage, number) / "seed.json")
        if seed is not None and seed.sha256 == submission.seed_sha256:
            return seed
    raise BrokenRecord(f"{file}: was trained from a model that is none of this lineage's seeds")
