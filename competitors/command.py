"""Competitor of kind `command`: the user's own program, in any language and framework, in a sandbox.

It is started in a process of its own with the brief as a file and as environment variables, writes its model
into the output folder and reports by appending JSON lines to a file. docs/competitors.md says what it gets, how
it is limited, and what the sandbox does and does not keep from it.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Literal, Self

import psutil
from pydantic import Field, field_validator, model_validator

from cluster.errors import Forfeit, UserError
from competitors import reaper, sandbox
from competitors.contract import Brief, RecipeBase, Report, settle_output
from competitors.program_output import Log, Progress
from competitors.supervision import STOP_SECONDS, Bounds, Supervision
from competitors.untrusted import refuse_odd_files


class CommandRecipe(RecipeBase):
    """A program and what it may use. `memory_gb` of `resources` is a limit on all its processes together."""

    kind: Literal["command"]
    command: list[str] = Field(alias="run", description="words, or one line that is split as a shell would, unexpanded")
    folder: Path = Field(Path("."), description="where it runs, from the config's folder; it can read it")
    read: list[Path] = Field([], description="what else it can read: data, environments")
    environment: dict[str, str | int | float] = Field({}, description="on record with the config: no place for secrets")
    sandbox: Literal["bubblewrap", "none"] = "bubblewrap"
    network: bool = False
    continuation: bool = Field(False, description="hand what it leaves in the continuation folder to other entries")
    disk_gb: float = Field(50, gt=0)
    processes: int = Field(512, ge=4)
    startup_seconds: float = Field(120, ge=0, description="after so long its budget runs whatever it reports")
    grace_seconds: float = Field(60, ge=0, description="to save, once its budget is used up")
    max_minutes: float = Field(1440, gt=0, description="of its whole run, where the budget sets no minutes")

    @field_validator("command", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        return shlex.split(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if not self.command or not self.command[0]:
            raise ValueError("run: names no program")
        if self.resources.workers > 1:
            raise ValueError("resources.workers: a command is one program on one node; give it more cpus or gpus")
        return self

    @property
    def summary(self) -> str:
        """The command line."""
        return shlex.join(self.command) + ("" if self.sandbox == "bubblewrap" else ", without a sandbox")

    def located(self, config_folder: Path) -> Self:
        """With its folders made absolute."""
        folder, *read = ((config_folder / path.expanduser()).absolute() for path in (self.folder, *self.read))
        plain = [Path(os.path.normpath(path)) for path in (folder, *read)]
        return self.model_copy(update={"folder": plain[0], "read": plain[1:]})

    def check(self) -> None:
        """UserError when a folder or the program is not there, or no sandbox can be made."""
        for key, path in [("folder", self.folder), *(("read", path) for path in self.read)]:
            if not path.exists() or (key == "folder" and not path.is_dir()):
                raise UserError(f"{key}: {path}: there is no such {'folder' if key == 'folder' else 'file or folder'}")
            if self.sandbox == "bubblewrap" and str(path) in sandbox.TAKEN:
                raise UserError(f"{key}: {path} cannot be shown to a program in the sandbox: name a folder below it")
        if self.sandbox == "bubblewrap" and (why := sandbox.trouble()) is not None:
            raise UserError(
                f"sandbox: {why}; install it (apt-get install bubblewrap), or set `sandbox: none` to run a program"
                " that you trust without one"
            )
        if (missing := self.missing_program()) is not None:
            raise UserError(f"run: {missing}")

    def missing_program(self) -> str | None:
        """That the program is not there, in words; None when it is."""
        name, path = self.command[0], str(self.environment.get("PATH", sandbox.SEARCH_PATH))
        if "/" in name:
            program = self.folder / name
            if not program.is_file():
                return f"{name}: there is no such program in {self.folder}"
            return None if os.access(program, os.X_OK) else f"{name} is not executable (chmod +x {program})"
        return None if shutil.which(name, path=path) else f"{name}: command not found in {path}"


def run(brief: Brief, recipe: CommandRecipe, report: Report) -> str:
    """Run the program to its end; says how that came. Raises Forfeit when it failed or went beyond a limit.

    A program that fails by itself forfeits, whatever it had saved; one that runs out of time has what is on disk.
    """
    if recipe.sandbox == "bubblewrap" and (why := sandbox.trouble()) is not None:
        raise Forfeit(f"sandbox: {why}")
    if (missing := recipe.missing_program()) is not None:
        raise Forfeit(missing)
    brief = _absolute(brief)
    if recipe.continuation:
        brief.continuation_dir.mkdir(exist_ok=True)
    try:
        reason = _run(brief, recipe, report)
        refuse_odd_files(brief.continuation_dir)
        if settle_output(brief.output_dir) is None:
            raise Forfeit(f"{reason}, and left no valid model")
        for file in brief.output_dir.iterdir():
            file.chmod(0o644)  # whoever scores it may be another user
    except Forfeit:
        # It may be as much as the quota, and nobody will look at it.
        for folder in (brief.output_dir, brief.continuation_dir):
            reaper.remove(folder)
        raise
    if not recipe.continuation or not any(brief.continuation_dir.iterdir()):
        reaper.remove(brief.continuation_dir)
    return reason


def _run(brief: Brief, recipe: CommandRecipe, report: Report) -> str:
    scratch = Path(tempfile.mkdtemp(prefix="command-"))
    log = Log(brief.log_file)
    try:
        brief.write(scratch / "brief.json")
        (scratch / "progress.jsonl").touch()
        with (scratch / "progress.jsonl").open("rb") as reports:
            progress = Progress(reports, report)
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
            program, brief, recipe.folder, recipe.read, scratch, recipe.network, bounds.memory_bytes
        )
    own = {name: str(value) for name, value in recipe.environment.items()}
    arguments = [os.getpid(), scratch, brief.running_file, bounds.disk_bytes, *program]
    brief.running_file.touch()
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


def _absolute(brief: Brief) -> Brief:
    """The brief with absolute paths: the program runs in another folder."""
    paths = {key: value.absolute() for key, value in brief if isinstance(value, Path)}
    return brief.model_copy(update=paths)


def _failure(code: int, last_line: str) -> str:
    known = {int(number): number.name for number in signal.Signals}
    by = f" ({known[code - 128]})" if code - 128 in known else ""
    return f"exited with code {code}{by}" + (f": {last_line}" if last_line else "")
