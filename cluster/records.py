"""Records that pass between stages, and settings that a user writes: both frozen, both checked.

A `Record` lies in the run directory as JSON. `Settings` are what a YAML file may hold: an unknown key is
refused with the nearest known one.
"""

import difflib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from cluster.store import write_text


def nearest(word: str, known: Iterable[str]) -> str:
    """A hint such as `; did you mean "rank"?` for a misspelt word, or the list of what is known."""
    names = sorted(known)
    close = difflib.get_close_matches(word, names, n=1)
    return f'; did you mean "{close[0]}"?' if close else f"; known are {', '.join(names)}"


class Record(BaseModel):
    """A small frozen record that passes between stages and lies in the run directory as JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    @classmethod
    def read(cls, path: Path) -> Self:
        """The record at `path`; FileNotFoundError if there is none."""
        return cls.model_validate_json(path.read_text(encoding="utf-8"))

    @classmethod
    def read_if_there(cls, path: Path) -> Self | None:
        """The record at `path`, or None: how a stage finds out that it is done already."""
        return cls.read(path) if path.exists() else None

    def write(self, path: Path) -> Self:
        """Write the record to `path` atomically and return it."""
        write_text(path, self.model_dump_json(indent=1) + "\n")
        return self


class Settings(BaseModel):
    """A section of the user's YAML."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

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
