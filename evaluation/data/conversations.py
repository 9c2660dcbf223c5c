"""Single-turn conversations: columns of lists of turns, with role and content or with from and value.

A template takes what one role says, as in `{messages[user]}`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

NOT_SINGLE_TURN = "not a single-turn conversation"
ORDER = ("system", "user", "assistant")
ROLES = dict(zip(ORDER, ORDER, strict=True)) | {"human": "user", "gpt": "assistant"}
"""By the names that published data use."""
PAIRS = (("role", "content"), ("from", "value"))


def column_and_role(field: str, columns: Collection[str]) -> tuple[str, str | None]:
    """The column that a template's field names, and, as in `{messages[user]}`, whose turn of it."""
    column, bracket, role = field.removesuffix("]").rpartition("[")
    is_turn = field not in columns and field.endswith("]") and bracket and role in ROLES
    return (column, ROLES[role]) if is_turn else (field, None)


def are_turns(kind: Any) -> bool:
    """Whether values of this Arrow type are lists of turns whose content is text."""
    import pyarrow.types as types

    if not (types.is_list(kind) or types.is_large_list(kind)) or not types.is_struct(kind.value_type):
        return False
    kinds = {field.name: field.type for field in kind.value_type}
    there = [pair for pair in PAIRS if kinds.keys() >= set(pair)]
    return bool(there) and all(
        types.is_string(kinds[key]) or types.is_large_string(kinds[key]) for pair in there for key in pair
    )


def turns_by_role(
    turns: Sequence[Mapping[str, Any] | None] | None, wanted: Collection[str] = ()
) -> dict[str, str] | None:
    """What each role says: system, user, assistant in this order, each once at most. None where the turns are others,
    or one that is `wanted` is not among them; a system's may always be missing."""
    said: dict[str, str] = {}
    for turn in turns or ():
        if turn is None:  # as Parquet may hold
            return None
        role = ROLES.get(turn.get("role") or turn.get("from") or "")
        if role is None or any(ORDER.index(role) <= ORDER.index(before) for before in said):
            return None
        said[role] = turn.get("content") or turn.get("value") or ""
    return said if said.keys() >= set(wanted) - {"system"} else None
