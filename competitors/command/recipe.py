"""Competitor of kind `command`: the user's own program, in any language and framework, in a sandbox.

It is started in a process of its own with the brief as a file and as environment variables, writes its model
into the output folder and reports by appending JSON lines to a file. docs/competitors/command.md says what it gets,
how it is limited, and what the sandbox does and does not keep from it.
"""

import os
import shlex
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from cluster.errors import UserError
from competitors.command import masks, sandbox
from competitors.contract import RecipeBase


class CommandRecipe(RecipeBase):
    """A program and what it may use. `memory_gb` of `resources` is a limit on all its processes together."""

    kind: Literal["command"]
    command: list[str] = Field(alias="run", description="words, or one line that is split as a shell would, unexpanded")
    folder: Path = Field(Path("."), description="where it runs, from the config's folder; it can read it")
    read: list[Path] = Field([], description="what else it can read: data, environments")
    hide: list[Path] = Field([], description="what of folder and read it cannot read: copies of the data")
    environment: dict[str, str | int | float] = Field({}, description="on record with the config: no place for secrets")
    sandbox: Literal["bubblewrap", "none"] = "bubblewrap"
    network: bool = False
    continuation: bool = Field(False, description="hand what it leaves in the continuation folder to other entries")
    disk_gb: float = Field(50, gt=0)
    processes: int = Field(512, ge=4)
    startup_seconds: float = Field(120, ge=0, description="after so long its budget runs whatever it reports")
    grace_seconds: float = Field(60, ge=0, description="to save, once its budget is used up")
    max_minutes: float = Field(1440, gt=0, description="of its whole run, where the budget sets no minutes")

    @field_validator("command", mode="before", json_schema_input_type=str | list[str])
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
    def is_program(self) -> bool:
        """It is one."""
        return True

    @property
    def summary(self) -> str:
        """The command line."""
        return shlex.join(self.command) + ("" if self.sandbox == "bubblewrap" else ", without a sandbox")

    def located(self, config_folder: Path) -> Self:
        """With its folders made absolute."""

        def plain(path: Path) -> Path:
            return Path(os.path.normpath((config_folder / path.expanduser()).absolute()))

        lists = {key: [plain(path) for path in getattr(self, key)] for key in ("read", "hide")}
        return self.model_copy(update={"folder": plain(self.folder), **lists})

    def kept_from(self, places: Sequence[Path]) -> Self:
        """As the contract says: they are hidden too."""
        return self.model_copy(update={"hide": [*self.hide, *places]})

    def check(self) -> None:
        """UserError when a folder or the program is not there, is not to be shown, or no sandbox can be made."""
        for key, path in [("folder", self.folder), *(("read", path) for path in self.read)]:
            if not path.exists() or (key == "folder" and not path.is_dir()):
                raise UserError(f"{key}: {path}: there is no such {'folder' if key == 'folder' else 'file or folder'}")
        if self.sandbox == "bubblewrap":
            if (why := self.refusal()) is not None:
                raise UserError(why)
            if (why := sandbox.trouble()) is not None:
                raise UserError(
                    f"sandbox: {why}; install it (apt-get install bubblewrap), or set `sandbox: none` to run a program"
                    " that you trust without one"
                )
        if (missing := self.missing_program()) is not None:
            raise UserError(f"run: {missing}")

    def refusal(self) -> str | None:
        """Why a folder or a file cannot be shown in the sandbox, in words; None when all can."""
        for key, path in [("folder", self.folder), *(("read", path) for path in self.read)]:
            if sandbox.is_taken(path):
                return f"{key}: {path} cannot be shown to a program in the sandbox: name a folder elsewhere"
            if (why := masks.refusal(path, self.hide)) is not None:
                return f"{key}: {why}"
        visible = [self.folder, *self.read]
        if (count := len(masks.masks(visible, [], self.hide))) > masks.MOST:
            return (
                f"folder: {count:,} files below {', '.join(map(str, visible))} hold data, too many to hide one by one"
                f" ({masks.MOST:,}): name a folder of its own"
            )
        return None

    def missing_program(self) -> str | None:
        """That the program, or the script that is Python's first word, is not there, in words; None when it is."""
        name, path = self.command[0], str(self.environment.get("PATH", sandbox.SEARCH_PATH))
        if "/" in name:
            program = self.folder / name
            if not program.is_file():
                return f"{name}: there is no such program in {self.folder}"
            return None if os.access(program, os.X_OK) else f"{name} is not executable (chmod +x {program})"
        if not shutil.which(name, path=path):
            return f"{name}: command not found in {path}"
        script = self.command[1] if len(self.command) > 1 else ""
        if name.startswith("python") and script.endswith(".py") and not (self.folder / script).exists():
            return f"{script}: there is no such file in {self.folder}"
        return None
