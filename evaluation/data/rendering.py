"""From a dataset's columns to the prompts and completions of its rows: the templates, and what they may say."""

import string
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from cluster.text import plain
from evaluation.data.conversations import are_turns, column_and_role, turns_by_role

if TYPE_CHECKING:
    from datasets import Dataset

Texts = tuple[str, str]
"""A row's prompt and completion."""

AT_ONCE = 1000
"""Rows that are read together: the others stay where the dataset keeps them, on the disk if it is large."""


class Rendered:
    """The rows of a dataset as (prompt, completion): in order, None where one is no single-turn conversation; or
    those of some numbers, which are not None."""

    def __init__(self, dataset: "Dataset", prompt: str, completion: str) -> None:
        """UserError for a template that is malformed, or names a column that is not there, or holds nothing or no
        text."""
        self._templates = prompt, completion
        templates = {"data.prompt": prompt, "data.completion": completion}
        self._fields: dict[str, tuple[str, str | None]] = {}
        """Of the templates: the column of each, and whose turn."""
        for key, template in templates.items():
            self._fields |= _fields(key, template, dataset)
        self._roles: dict[str, set[str]] = {}
        """What the templates take from conversations, by column."""
        for column, role in self._fields.values():
            if role is not None:
                self._roles.setdefault(column, set()).add(role)
        # Only what the templates use: other columns may be images, or large.
        self._dataset = dataset.select_columns(sorted({column for column, _ in self._fields.values()}))

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Texts | None]:
        for columns in self._dataset.iter(AT_ONCE):
            yield from self._filled(columns)

    def at(self, numbers: Sequence[int]) -> list[Texts]:
        """The rows of these numbers, in their order."""
        rows = self._filled(self._dataset[list(numbers)]) if len(numbers) else ()
        return [row for row in rows if row is not None]

    def _filled(self, columns: dict[str, list[Any]]) -> Iterator[Texts | None]:
        prompt, completion = self._templates
        for values in zip(*columns.values(), strict=True):
            row = dict(zip(columns, values, strict=True))
            turns = {column: turns_by_role(row[column], roles) for column, roles in self._roles.items()}
            if None in turns.values():
                yield None
                continue
            shown = {
                name: _text(row[column] if role is None else (turns[column] or {}).get(role))
                for name, (column, role) in self._fields.items()
            }
            yield _fill(prompt, shown), _fill(completion, shown)


def render(dataset: "Dataset", prompt: str, completion: str) -> Iterator[Texts]:
    """(prompt, completion) of every row but of what is not a single-turn conversation, the templates applied."""
    return (row for row in Rendered(dataset, prompt, completion) if row is not None)


def values_of(dataset: "Dataset", key: str, column: str) -> Iterator[str | None]:
    """A column's values as text, None where one is missing or blank. UserError that names `key` if it is not there."""
    if column not in dataset.column_names:
        there = ", ".join(dataset.column_names)
        raise UserError(f"{key}: there is no column {column!r}; the columns are {there}")
    for columns in dataset.select_columns([column]).iter(AT_ONCE):
        yield from (None if value is None or not str(value).strip() else str(value) for value in columns[column])


def _fields(key: str, template: str, dataset: "Dataset") -> dict[str, tuple[str, str | None]]:
    """The fields of a template, each with its column and, of a conversation, whose turn it is. UserError when it is
    malformed, or a column holds nothing or no text."""
    try:
        fields = [(name, form, conversion) for _, name, form, conversion in string.Formatter().parse(template)]
    except ValueError as error:
        raise UserError(f"{key}: {template!r} is not a template: {error} (a literal brace is written twice)") from error
    if any(form or conversion for _, form, conversion in fields):
        raise UserError(f"{key}: {template!r}: a field is just a column in braces, without ! or :")
    named = {name: column_and_role(name, dataset.column_names) for name, _, _ in fields if name is not None}
    there = ", ".join(dataset.column_names)
    for column, role in sorted(named.values(), key=str):
        if column not in dataset.column_names or _is_empty(dataset.data.column(column)):
            raise UserError(f"{key}: {template!r} names the column {column!r}; the columns are {there}")
        kind = dataset.data.column(column).type
        if role is None and not _is_text(kind):
            remedy = f"; write {{{column}[user]}} or {{{column}[assistant]}}" if are_turns(kind) else ""
            what = f"the column {column!r}, which holds {plain(kind, 60)} and not text{remedy}"
            raise UserError(f"{key}: {template!r} names {what}")
        if role is not None and not are_turns(kind):
            what = f"a turn of the column {column!r}, which holds {plain(kind, 60)} and not lists of role and content"
            raise UserError(f"{key}: {template!r} names {what}, or of from and value")
    if not named:
        raise UserError(f"{key}: {template!r} names no column in braces; the columns are {there}")
    return named


def _is_text(kind: Any) -> bool:
    """Whether values of this Arrow type are something to read: text, numbers, dates."""
    import pyarrow.types as types

    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _is_empty(column: Any) -> bool:
    return bool(column.null_count == len(column))


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _fill(template: str, values: dict[str, str]) -> str:
    """Not str.format, to which `{a.b}` and `{a[0]}` mean something else than the column of that name."""
    parts = string.Formatter().parse(template)
    return "".join(text + (values[name] if name is not None else "") for text, name, _, _ in parts)
