"""Records that pass between stages, and settings that a user writes: both frozen, both checked.

A `Record` lies in the run directory as JSON, with the number of its format. `Settings` are what a YAML file may
hold: an unknown key is refused with the nearest known one.
"""

import difflib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainSerializer,
    SerializationInfo,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import PydanticCustomError

from cluster.errors import BrokenRecord
from cluster.store import LOCAL, Store
from cluster.text import harmless

OTHERS_WORDS = {
    "adamw": "adamw_torch",
    "gradient_accumulation_steps": "gradient_accumulation",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "lr": "learning_rate",
    "lr_scheduler_type": "schedule",
    "num_train_epochs": "rounds",
    "optim": "optimizer",
    "per_device_train_batch_size": "batch_size",
    "r": "rank",
    "validate": "plan",
    "warmup_ratio": "warmup",
}
"""What other programs, Hugging Face's Trainer and PEFT above all, call what we have."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as `; did you mean "rank"?` for a misspelt word, or the list of what is known."""
    names = sorted(known)
    theirs = OTHERS_WORDS.get(word)
    close = [theirs] if theirs in names else difflib.get_close_matches(word, names, n=1)
    return f'; did you mean "{close[0]}"?' if close else f"; known are {', '.join(names)}"


def _stored(path: Path, info: SerializationInfo) -> str:
    root = (info.context or {}).get("root")
    return path.relative_to(root).as_posix() if root and path.is_relative_to(root) else str(path)


def _restored(value: Any, info: ValidationInfo) -> Any:
    root = (info.context or {}).get("root")
    return root / value if root and isinstance(value, str) else value  # an absolute value stays what it is


StoredPath = Annotated[Path, BeforeValidator(_restored), PlainSerializer(_stored)]
"""A path that a record on disk holds relative to `root`, where it lies below it: a run directory may be moved."""


Reason = Annotated[str, BeforeValidator(harmless)]
"""Why something was refused or went wrong: the words of others, cut and made harmless wherever a record is made."""


class Record(BaseModel):
    """A small frozen record that passes between stages and lies in the run directory as JSON.

    `FORMAT` is counted up when what is written can no longer be read by an older version. Numbers that are not
    finite are written as the words that they are read back from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_inf_nan="strings")
    FORMAT: ClassVar[int] = 1

    @classmethod
    def read(cls, path: Path, root: Path | None = None) -> Self:
        """The record at `path`, its relative paths below `root`.

        FileNotFoundError if there is none; BrokenRecord, naming the file, if it is cut off or of another format.
        """
        again = "remove it, and the same command does that step again"
        try:
            data = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise BrokenRecord(f"{path}: is cut off or damaged ({error}): {again}") from error
        written = data.pop("format", None) if isinstance(data, dict) else None
        if written != cls.FORMAT:
            raise BrokenRecord(_other_format(path, written, cls.FORMAT))
        try:
            return cls.model_validate(data, context={"root": root})
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            key = ".".join(str(part) for part in problem["loc"])
            raise BrokenRecord(f"{path}: {key}: {problem['msg']}: {again}") from error

    @classmethod
    def read_if_there(cls, path: Path, root: Path | None = None) -> Self | None:
        """The record at `path`, or None: how a stage finds out that it is done already."""
        try:
            return cls.read(path, root)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, path: Path, root: Path | None = None, store: Store = LOCAL) -> Self:
        """Write the record to `path` atomically, paths below `root` relative to it, and return it."""
        store.write_text(path, self.to_text(root))
        return self

    def to_text(self, root: Path | None = None) -> str:
        """What `write` writes."""
        text = self.model_dump_json(indent=1, by_alias=True, context={"root": root})
        return f'{{\n "format": {self.FORMAT},{text.removeprefix("{")}\n'


def _other_format(path: Path, written: Any, known: int) -> str:
    if isinstance(written, int) and written > known:
        return f"{path}: was written by a newer version of this program (format {written}, known here is {known})"
    return (
        f"{path}: was written by another version of this program (format {written or 'none'}, known here is"
        f" {known}): go on with that version, or give another --run-dir"
    )


class Settings(BaseModel):
    """A section of the user's YAML. Its numbers are finite."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, dict):
            known = {field.alias or name for name, field in cls.model_fields.items()}
            for key in data:
                if key not in known and key not in cls.model_fields:
                    hint = nearest(str(key), known)
                    raise PydanticCustomError(
                        "unknown_key", 'unknown key "{key}"{hint}', {"key": str(key), "hint": hint}
                    )
        return data
