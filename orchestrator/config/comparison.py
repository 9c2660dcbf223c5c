"""Where two configs differ, and a config as a flat list of values."""

import re
from collections.abc import Iterator
from typing import Any

from orchestrator.config.tournament import TournamentConfig

APART = {"cluster", "tracking", "limits", "changes", "competitors_by"}
"""Sections of where it runs, and what is compared in another way or not at all."""
FREE = re.compile(
    r"evaluation\.at_once|(evaluation|competitors\..+)\.resources\.(memory_gb|labels(\..+)?)",
)
"""Single keys of how it runs. Not batch_tokens, cpus and gpus: by the shapes of batches, by
threads and devices, sums differ in their last bits, and losses of one tournament are compared row by row."""


def differences(ours: TournamentConfig, theirs: TournamentConfig) -> list[str]:
    """Where two configs would compute something else, as `key: ours != theirs`.

    Where and how it runs and where it is tracked may change between one start and the next.
    """
    left, right = (dict(flatten(c.model_dump(mode="json", by_alias=True, exclude=APART))) for c in (ours, theirs))
    keys = [key for key in {**left, **right} if not FREE.fullmatch(key)]
    changed = ours.changes != theirs.changes[: len(ours.changes)]  # what was changed there since is on record there
    return (["changes: are others there"] if changed else []) + [
        f"{key}: {left.get(key, 'absent')} is {right.get(key, 'absent')} there"
        for key in keys
        if left.get(key) != right.get(key)
    ]


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value of nested dicts and lists with its dotted key; list items go by name where they have one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, inner in enumerate(value):
            name = inner.get("name", index) if isinstance(inner, dict) else index
            yield from flatten(inner, f"{prefix}.{name}")
    else:
        yield prefix, value
