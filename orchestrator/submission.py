"""`tournament submit`: what of this machine a tournament needs on the cluster, and its job there, followed to its end.

What is sent is our own packages and the config's folder, so the cluster's image only has to hold what they import.
"""

import hashlib
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

import cluster
import competitors
import evaluation
import orchestrator
from cluster.errors import ClusterTrouble, UserError
from cluster.on_ray.submission import MOST_BYTES, Jobs
from cluster.text import first_line
from evaluation.data.sources import BUILTIN, HUB, matches
from orchestrator.config.tournament import TournamentConfig

PACKAGES = [Path(str(package.__file__)).parent for package in (orchestrator, competitors, evaluation, cluster)]
IMPORTED = ("*.py", "*.j2")
"""What of them is sent: what is imported, as in a wheel. In a checkout people's passwords lie in `cluster/`."""
LEFT_OUT = (".*", "__pycache__", "node_modules", "venv", "*.egg-info")
"""What of the config's folder is never sent, at any depth: histories, environments, caches, `.env` files."""
LEFT_OUT_AT_TOP = ("runs", "data", "mlruns", "mlflow.db")
"""Nor these beside the config, but for what it names in them."""


def submit_tournament(
    config: TournamentConfig,
    config_file: Path,
    run_dir: Path,
    address: str,
    again: str,
    console: Console,
    overrides: Sequence[str] = (),
    submission_id: str | None = None,
    entrypoint_cpus: float = 0,
    exclude: Sequence[str] = (),
    follow: bool = True,
) -> int:
    """Submit a tournament, or find that it runs there already; with `follow`, return the exit code of its command.

    `again` is the command that goes on with it. UserError for what the user has to mend, before anything is sent
    where it can be known here; ClusterTrouble where the job was stopped or lost.
    """
    if not run_dir.is_absolute() and config.cluster.bucket is None:
        raise UserError(
            f"--run-dir {run_dir}: on the cluster this would be a temporary folder; give an absolute path that all its"
            " nodes share, here or as cluster.storage"
        )
    sent = to_send(config, config_file, exclude)
    jobs = Jobs(address)
    stem = f"{config.name}-{hashlib.sha256(str(run_dir).encode()).hexdigest()[:6]}"
    job, is_running = (submission_id, jobs.is_running(submission_id)) if submission_id else jobs.next_id(stem)
    if is_running:
        _say(console, f"{job} runs already on {jobs.address}: nothing was submitted")
    else:
        with TemporaryDirectory(prefix="tournament-") as staged:
            folder, packages = Path(staged, "config"), Path(staged, "packages")
            lay_out(sent, config_file.absolute().parent, folder)
            command = _command(config, config_file, run_dir, overrides)
            jobs.submit(job, command, folder, packages_in(packages), entrypoint_cpus)
        _say(console, f"submitted {job} to {jobs.address}")
    at = f"--address {jobs.address} {job}"
    _say(console, f"follow it: ray job logs --follow {at}\nstop it in order: ray job stop {at}")
    return _followed(jobs, job, at, again) if follow else 0


def to_send(config: TournamentConfig, config_file: Path, exclude: Sequence[str] = ()) -> list[Path]:
    """The files that go to the cluster: those of the config's folder but for what is left out, and what it names there.

    UserError where it names what cannot be sent, or all is too much.
    """
    folder = config_file.absolute().parent
    files = sorted({*_files(folder, folder, exclude), *_named(config, config_file, folder)})
    sizes = {file: file.stat().st_size for file in files}
    if sum(sizes.values()) > MOST_BYTES:
        largest = max(files, key=lambda file: sizes[file])
        raise UserError(
            f"{folder}: {_megabytes(sum(sizes.values()))} would be sent with {config_file.name}, and Ray takes"
            f" {_megabytes(MOST_BYTES)} (the largest is {largest.relative_to(folder)}, {_megabytes(sizes[largest])}):"
            " leave out what is not needed (--exclude), name data and models on storage that all nodes share or on"
            " the hub, or give the config a folder of its own"
        )
    return files


def packages_in(staged: Path, packages: Sequence[Path] = PACKAGES) -> list[Path]:
    """Copies of our packages in `staged`, of what is imported alone."""
    for package in packages:
        lay_out([file for kind in IMPORTED for file in package.rglob(kind)], package, staged / package.name)
    return [staged / package.name for package in packages]


def lay_out(files: Sequence[Path], folder: Path, staged: Path) -> None:
    """Make `staged` a folder with copies of `files`, each where it lies in `folder`."""
    for file in files:
        copy = staged / file.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


def _files(top: Path, folder: Path, exclude: Sequence[str]) -> Iterator[Path]:
    """The files of the config's folder `top` below `folder`; folders that are links may lead in circles."""
    patterns = [*LEFT_OUT, *(LEFT_OUT_AT_TOP if folder == top else ()), *exclude]
    for path in folder.iterdir():
        inside = path.relative_to(top).as_posix()
        if any(fnmatch(path.name, pattern) or fnmatch(inside, pattern.strip("/")) for pattern in patterns):
            continue
        if path.is_dir() and not path.is_symlink():
            yield from _files(top, path, exclude)
        elif path.is_file():
            yield path


def _named(config: TournamentConfig, config_file: Path, folder: Path) -> Iterator[Path]:
    """The files of data and models that the config names by a path from its folder. Others are the cluster's."""
    for source in config.data.sources:
        if not source.startswith((BUILTIN, HUB)) and not Path(source).expanduser().is_absolute():
            yield from _below(folder, matches(source, folder), f"{config_file}: data.source: {source}")
    for key, spec in config.models:
        path = Path(spec).expanduser()
        is_path = spec.startswith(".") or spec.count("/") > 1 or (folder / path).is_dir() or path.is_dir()
        if not spec.startswith(BUILTIN) and not path.is_absolute() and is_path:
            yield from _below(folder, [folder / path], f"{config_file}: {key}: {spec}")


def _below(folder: Path, paths: Sequence[Path], what: str) -> Iterator[Path]:
    """Those of `paths` that are files, and the files in the others. UserError unless all lie in `folder`."""
    for path in paths or [folder / ".."]:
        path = Path(os.path.normpath(path))
        if not path.is_relative_to(folder) or not path.exists():
            raise UserError(
                f"{what}: is not in {folder}, and only that is sent: put it there, or name what all nodes of the"
                " cluster find, by an absolute path or on the hub"
            )
        yield from (one for one in (path.rglob("*") if path.is_dir() else [path]) if one.is_file())


def _command(config: TournamentConfig, config_file: Path, run_dir: Path, overrides: Sequence[str]) -> list[str]:
    """What runs on the cluster, in the copy of the config's folder."""
    here = ["cluster.address=null"] if config.cluster.address else []  # the job's own cluster is meant
    changes = [part for override in (*overrides, *here) for part in ("--set", override)]
    return ["python", "-m", "orchestrator", "run", config_file.name, "--run-dir", str(run_dir), *changes]


def _followed(jobs: Jobs, job: str, at: str, again: str) -> int:
    """Show the job's log until it has ended. The exit code of its command, which said why itself."""
    try:
        ended = jobs.follow(job, _write)
    except KeyboardInterrupt as error:
        raise ClusterTrouble(
            f"following ended; {job} goes on\nfollow it again: {again}\nstop it in order: ray job stop {at}"
        ) from error
    if ended.exit_code in (0, 1, 3):
        return ended.exit_code
    why = "was stopped" if ended.was_stopped else f"did not end well: {first_line(ended.said)}"
    raise ClusterTrouble(f"{job} {why}\ngo on with the same command: {again}")


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(console: Console, text: str) -> None:
    console.print(text, soft_wrap=True, markup=False, highlight=False)


def _megabytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"
