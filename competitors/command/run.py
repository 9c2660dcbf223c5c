"""What runs an entry of kind `command`: the user's program under watch, and what it left."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil

from cluster.errors import ClusterTrouble, Forfeit
from cluster.store import LOCAL
from competitors import running
from competitors.command import reaper, sandbox
from competitors.command.program_output import Log, Progress
from competitors.command.recipe import CommandRecipe
from competitors.command.supervision import STOP_SECONDS, Bounds, Supervision
from competitors.contract import Brief
from competitors.events import EventReader, Report
from competitors.output import settle_output
from competitors.untrusted import refuse_odd_files

FULL_BYTES = 2**20
"""A disk with less than this left is full."""


def run(brief: Brief, recipe: CommandRecipe, report: Report) -> str:
    """Run the program to its end; says how that came. Raises Forfeit when it failed or went beyond a limit.

    A program that fails by itself forfeits, whatever it had saved; one that runs out of time has what is on disk.
    """
    if recipe.sandbox == "bubblewrap":
        if (why := sandbox.trouble()) is not None:
            raise Forfeit(f"sandbox: {why}")
        if (why := recipe.refusal()) is not None:  # what was entered since, or has changed
            raise Forfeit(why)
    if (missing := recipe.missing_program()) is not None:
        raise Forfeit(missing)
    brief = _real(brief)
    if recipe.continuation:
        brief.continuation_dir.mkdir(exist_ok=True)
    try:
        reason = _run(brief, recipe, report)
        refuse_odd_files(brief.continuation_dir)
        if settle_output(brief.output_dir) is None:
            raise Forfeit(f"{reason}, and left no valid model")
        for file in brief.output_dir.iterdir():
            _let_others_read(file)
    except Forfeit as own:
        if (why := _full_disk(brief)) is not None:
            raise ClusterTrouble(f"{brief.competitor}: {why}") from own
        # It may be as much as the quota, and nobody will look at it.
        for folder in (brief.output_dir, brief.continuation_dir):
            reaper.remove(folder)
        raise
    if not recipe.continuation or not any(brief.continuation_dir.iterdir()):
        reaper.remove(brief.continuation_dir)
    return reason


def _full_disk(brief: Brief) -> str | None:
    """That a disk which the program writes to is full, in words. Its own quota is half of what there was free."""
    folders = [folder for folder in (brief.output_dir, Path(tempfile.gettempdir())) if folder.is_dir()]
    full = next((folder for folder in folders if shutil.disk_usage(folder).free < FULL_BYTES), None)
    return None if full is None else f"the disk of {full} is full"


def _let_others_read(file: Path) -> None:
    """Whoever scores it may be another user. What lies elsewhere under another name, as a seed's weights that a
    program has linked, is left as it is there."""
    if file.stat().st_mode & 0o444 == 0o444:
        return
    if file.stat().st_nlink > 1:
        with LOCAL.writing(file) as copy:
            shutil.copyfile(file, copy)
    file.chmod(0o644)


def _run(brief: Brief, recipe: CommandRecipe, report: Report) -> str:
    scratch = Path(tempfile.mkdtemp(prefix="command-"))
    log = Log(brief.log_file)
    try:
        brief.write(scratch / "brief.json")
        reports = scratch / "progress.jsonl"
        reports.touch()
        with reports.open("rb") as stream:
            progress = Progress(EventReader(reports, stream=stream), report)
            bounds = _bounds(brief, recipe, scratch)
            process = _start(brief, recipe, scratch, bounds)
            folders = [brief.output_dir, scratch, *([brief.continuation_dir] if recipe.continuation else [])]
            watch = Supervision(process, bounds, progress, log, folders)
            try:
                code = watch.follow()
            finally:
                _end(process)
        report({"event": "ended", "step": progress.step, "tokens": progress.tokens, "seconds": round(watch.seconds, 3)})
        if code:
            raise Forfeit(_failure(code, log.last_line))
        return "ended by itself" if code == 0 else watch.why
    finally:
        log.close()
        reaper.remove(scratch)


def _start(brief: Brief, recipe: CommandRecipe, scratch: Path, bounds: Bounds) -> "subprocess.Popen[bytes]":
    """Start the reaper, which starts the program."""
    home, program = scratch, recipe.command
    if recipe.sandbox == "bubblewrap":
        home = Path("/tmp")
        program = sandbox.command_line(
            program, brief, recipe.folder, recipe.read, recipe.hide, scratch, recipe.network, bounds.memory_bytes
        )
    own = {name: str(value) for name, value in recipe.environment.items()}
    arguments = [os.getpid(), scratch, brief.running_file, bounds.disk_bytes, *program]
    running.mark(brief.running_file)
    return subprocess.Popen(
        [sys.executable, "-I", reaper.__file__, *map(str, arguments)],
        cwd=recipe.folder,
        env=sandbox.environment(brief, home, recipe.network, own),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End the program and all that it started."""
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(reaper.KILL_SECONDS + STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _bounds(brief: Brief, recipe: CommandRecipe, scratch: Path) -> Bounds:
    """What the program may use: what the recipe says, and where it says nothing half of what the node has free."""
    memory = psutil.virtual_memory().available // 2
    if recipe.resources.memory_gb is not None:
        memory = int(recipe.resources.memory_gb * 2**30)
    free = min(shutil.disk_usage(folder).free for folder in (brief.output_dir, scratch))
    seconds = recipe.max_minutes * 60
    if brief.budget.seconds is not None:
        seconds = recipe.startup_seconds + brief.budget.seconds + recipe.grace_seconds + STOP_SECONDS
    return Bounds(
        budget=brief.budget,
        startup_seconds=recipe.startup_seconds,
        grace_seconds=recipe.grace_seconds,
        total_seconds=seconds,
        memory_bytes=memory,
        disk_bytes=min(int(recipe.disk_gb * 1e9), free // 2),
        processes=recipe.processes,
    )


def _real(brief: Brief) -> Brief:
    """The brief with paths that are absolute, for the program runs in another folder, and lead over no links, which
    may not be there in the sandbox."""
    paths = {key: value.resolve() for key, value in brief if isinstance(value, Path)}
    return brief.model_copy(update=paths)


def _failure(code: int, last_line: str) -> str:
    known = {int(number): number.name for number in signal.Signals}
    by = f" ({known[code - 128]})" if code - 128 in known else ""
    return f"exited with code {code}{by}" + (f": {last_line}" if last_line else "")
