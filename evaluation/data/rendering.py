"""From a dataset's columns to the prompts and completions of its rows: the templates, and what they may say."""

import string
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from cluster.errors import UserError
from cluster.text import plain

if TYPE_CHECKING:
    from datasets import Dataset

Texts = tuple[str, str]
"""A row's prompt and completion."""

AT_ONCE = 1000
"""Rows that are read together: the others stay where the dataset keeps them, on the disk if it is large."""


class Rendered:
    """The rows of a dataset as (prompt, completion): in order, or those of some numbers."""

    def __init__(self, dataset: "Dataset", prompt: str, completion: str) -> None:
        """UserError for a template that is malformed, or names a column that is not there, or holds nothing or no
        text."""
        self._templates = prompt, completion
        templates = {"data.prompt": prompt, "data.completion": completion}
        used = {column for key, template in templates.items() for column in _columns(key, template, dataset)}
        # Only what the templates use: other columns may be images, or large.
        self._dataset = dataset.select_columns(sorted(used))

    def __len__(self) -> int:
        return len(self._dataset)

    def __iter__(self) -> Iterator[Texts]:
        for columns in self._dataset.iter(AT_ONCE):
            yield from self._filled(columns)

    def at(self, numbers: Sequence[int]) -> list[Texts]:
        """The rows of these numbers, in their order."""
        return list(self._filled(self._dataset[list(numbers)])) if len(numbers) else []

    def _filled(self, columns: dict[str, list[Any]]) -> Iterator[Texts]:
        prompt, completion = self._templates
        for values in zip(*columns.values(), strict=True):
            shown = {name: "" if value is None else str(value) for name, value in zip(columns, values, strict=True)}
            yield _fill(prompt, shown), _fill(completion, shown)


def render(dataset: "Dataset", prompt: str, completion: str) -> Iterator[Texts]:
    """(prompt, completion) of every row, the templates applied."""
    return iter(Rendered(dataset, prompt, completion))


def values_of(dataset: "Dataset", key: str, column: str) -> Iterator[str | None]:
    """A column's values as text, None where one is missing or blank. UserError that names `key` if it is not there."""
    if column not in dataset.column_names:
        there = ", ".join(dataset.column_names)
        raise UserError(f"{key}: there is no column {column!r}; the columns are {there}")
    for columns in dataset.select_columns([column]).iter(AT_ONCE):
        yield from (None if value is None or not str(value).strip() else str(value) for value in columns[column])


def _columns(key: str, template: str, dataset: "Dataset") -> set[str]:
    """The columns that a template names; UserError when it is malformed, or one of them holds nothing or no text."""
    try:
        fields = [(name, form, conversion) for _, name, form, conversion in string.Formatter().parse(template)]
    except ValueError as error:
        raise UserError(f"{key}: {template!r} is not a template: {error} (a literal brace is written twice)") from error
    named = {name for name, _, _ in fields if name is not None}
    if any(form or conversion for _, form, conversion in fields):
        raise UserError(f"{key}: {template!r}: a field is just a column in braces, without ! or :")
    there = ", ".join(dataset.column_names)
    for column in sorted(named):
        if column not in dataset.column_names or _is_empty(dataset.data.column(column)):
            raise UserError(f"{key}: {template!r} names the column {column!r}; the columns are {there}")
        if not _is_text(dataset.data.column(column).type):
            kind = dataset.data.column(column).type
            raise UserError(
                f"{key}: {template!r} names the column {column!r}, which holds {plain(kind, 60)} and not text; of a"
                " conversation make one row of each answer, with a prompt and a completion"
            )
    if not named:
        raise UserError(f"{key}: {template!r} names no column in braces; the columns are {there}")
    return named


def _is_text(kind: Any) -> bool:
    """Whether values of this Arrow type are something to read: text, numbers, dates."""
    import pyarrow.types as types

    return not (types.is_nested(kind) or types.is_binary(kind) or types.is_large_binary(kind))


def _is_empty(column: Any) -> bool:
    return bool(column.null_count == len(column))


def _fill(template: str, values: dict[str, str]) -> str:
    """Not str.format, to which `{a.b}` and `{a[0]}` mean something else than the column of that name."""
    parts = string.Formatter().parse(template)
    return "".join(text + (values[name] if name is not None else "") for text, name, _, _ in parts)
