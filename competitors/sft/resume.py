"""What a training that lost its process or a worker goes on from, saved with each checkpoint.

    scratch/resume/       a continuation (continuation.py) of the weights as they were trained, and
      average.safetensors   the mean over the tail so far, by parameter name; empty where there is none
      resume.json           where in the budget that was; written last: without it the folder counts for nothing

A new one lies whole beside the old before it takes its place.
"""

from pathlib import Path

from cluster.records import Record
from cluster.store import LOCAL
from competitors.contract import Brief


class Resume(Record):
    """resume.json."""

    step: int
    seconds: float
    """Of the budget, spent until then."""
    averaged: int
    """Over how many steps the weights in average.safetensors are averaged; 0: there are none."""


def saved(brief: Brief) -> Path | None:
    """The newest whole folder to go on from, if there is one."""
    return next((folder for folder in (new_folder(brief), _folder(brief)) if (folder / "resume.json").is_file()), None)


def new_folder(brief: Brief) -> Path:
    """Where the next one is written."""
    return brief.scratch_dir / "resume.new"


def finish(brief: Brief, resume: Resume) -> None:
    """Put the new folder, in which everything else lies, in the place of the old."""
    new, folder = new_folder(brief), _folder(brief)
    resume.write(new / "resume.json")
    LOCAL.remove(folder / "resume.json")  # a folder that is half removed must not look whole
    LOCAL.move(new, folder)


def _folder(brief: Brief) -> Path:
    return brief.scratch_dir / "resume"
