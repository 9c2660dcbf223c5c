"""What a program is not shown of the folders that it is shown: wherever a raw held-out row may lie.

Paths are compared as they really are, links followed, so that no other name of a folder leads past a mask.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

MOST = 1000
"""So many masks can be laid: each is a mount, and three words of one command line."""
KEPT_BY_MLFLOW = ("mlflow-artifacts", "mlruns", "mlartifacts")
"""Folders of artifacts, reports with samples of test rows among them."""


def refusal(path: Path, hidden: Sequence[Path]) -> str | None:
    """Why `path` cannot be shown to a program, in words: it is kept from programs, or lies in what is."""
    real = path.resolve()
    around = [place for place in (real, *real.parents) if _is_held_out(place) or (place == real and _is_run(place))]
    keeping = next((place for place in (*hidden, *around) if real.is_relative_to(place.resolve())), None)
    if keeping is None:
        return None
    whole = "it" if keeping.resolve() == real else f"{keeping}, in which it lies,"
    return f"{path} cannot be shown to a program: {whole} may hold held-out rows; name a folder of its own elsewhere"


def masks(shown: Sequence[Path], searched: Sequence[Path], hidden: Sequence[Path]) -> list[Path]:
    """What to cover of the `shown` folders, so that nothing of `hidden` is there.

    Of the `searched` ones also run directories, held-out rows and MLflow's artifacts wherever they lie below them, and
    every other name (hard link) of a hidden file.
    """
    places = {place.resolve() for place in hidden if place.exists()}
    twins = {_identity(place) for place in places if place.is_file() and place.stat().st_nlink > 1} - {None}
    for folder in searched:
        places |= set(_found(folder.resolve(), twins))
    found = set()
    for path in shown:
        real = path.resolve()
        found |= {path / place.relative_to(real) for place in places if place != real and place.is_relative_to(real)}
    return sorted(path for path in found if not any(_covers(other, path, shown) for other in found))


def _covers(mask: Path, path: Path, shown: Sequence[Path]) -> bool:
    """Whether `path` lies under the mask, and within nothing that is shown in spite of it."""
    if path == mask or not path.is_relative_to(mask):
        return False
    return not any(path.is_relative_to(one) and one != mask and one.is_relative_to(mask) for one in shown)


def _found(top: Path, twins: set[tuple[int, int] | None]) -> Iterator[Path]:
    """What is to be hidden below `top`; links are not followed, for in the sandbox they lead nowhere else."""
    for name, folders, files in os.walk(top):
        folder = Path(name)
        secret = [one for one in folders if one in KEPT_BY_MLFLOW or _is_kept(folder / one)]
        yield from (folder / one for one in secret)
        folders[:] = [one for one in folders if one not in secret]
        if twins:
            yield from (folder / file for file in files if _identity(folder / file) in twins)


def _is_kept(folder: Path) -> bool:
    return _is_held_out(folder) or _is_run(folder)


def _is_run(folder: Path) -> bool:
    return _is_held_out(folder / "data" / "held_out") and (folder / "data" / "manifest.json").is_file()


def _is_held_out(folder: Path) -> bool:
    """Whether it is the folder of held-out rows in some run directory."""
    return folder.name == "held_out" and folder.parent.name == "data" and folder.is_dir()


def _identity(file: Path) -> tuple[int, int] | None:
    try:
        status = file.lstat()
    except FileNotFoundError:  # somebody works there
        return None
    return status.st_dev, status.st_ino
