"""Which columns of a dataset are prompt and completion: by the names that published data use. Pure functions."""

from collections.abc import Mapping, Sequence
from typing import Any

from cluster.errors import UserError
from cluster.records import Record
from cluster.text import plain
from evaluation.data.conversations import PAIRS, turns_by_role

PROMPTS = ("instruction", "prompt", "question", "query", "inputs", "problem", "source", "input")
"""Names of what a model is given, the most telling first."""
CONTEXTS = ("input", "context", "passage")
"""Names of what stands beside it, and often is empty."""
COMPLETIONS = (
    "output", "completion", "response", "answer", "targets", "target", "solution", "answers", "responses", "outputs",
)  # fmt: skip
CONVERSATIONS = ("messages", "conversations", "conversation", "dialog", "dialogue", "chat")


class Templates(Record):
    """What a config's `data` says about the columns."""

    prompt: str
    completion: str


def find_templates(source: str, rows: Sequence[Mapping[str, Any]]) -> Templates:
    """The templates for `rows`, some of a dataset's. UserError, with the columns there are, where none can be found."""
    columns = list(rows[0])
    texts = {column.lower(): column for column in columns if _is_text(column, rows)}
    there = f"{source} has the columns {plain(', '.join(columns))}"
    prompt = next((texts[name] for name in PROMPTS if name in texts), None)
    completion = next((texts[name] for name in COMPLETIONS if name in texts), None)
    if prompt is not None and completion is not None:
        context = next((texts[n] for n in CONTEXTS if n in texts and texts[n] not in (prompt, completion)), None)
        beside = f"{{{context}}}\n" if context is not None and any(row[context] for row in rows) else ""
        return Templates(prompt=f"{{{prompt}}}\n{beside}", completion=f"{{{completion}}}")
    talks = {column: _roles(column, rows) for column in columns if _holds_turns(column, rows)}
    if (taken := _of_conversations(talks)) is not None:
        return taken
    if talks:
        raise UserError(
            f"DATA: {there}: no single-turn conversations of user and assistant in {', '.join(talks)}; make one row of"
            " each answer, with a prompt and a completion"
        )
    lacking = "completion" if prompt is not None else "prompt" if completion is not None else "prompt and no completion"
    raise UserError(
        f"DATA: {there}: no {lacking} among them; name them {PROMPTS[0]} and {COMPLETIONS[2]}, or write a config with"
        " your own data.prompt and data.completion"
    )


def _of_conversations(talks: Mapping[str, set[str]]) -> Templates | None:
    """The templates for columns of turns, each with its roles: one column of both, else a prompt and a completion."""
    named = {column.lower(): column for column in talks}
    both = [(named[name], named[name]) for name in CONVERSATIONS if name in named]
    apart = [(named[p], named[c]) for p in PROMPTS for c in COMPLETIONS if {p, c} <= named.keys()]
    for prompt, completion in both + apart:
        if "user" in talks[prompt] and "assistant" in talks[completion]:
            system = f"{{{prompt}[system]}}\n" if "system" in talks[prompt] else ""
            return Templates(prompt=f"{system}{{{prompt}[user]}}\n", completion=f"{{{completion}[assistant]}}")
    return None


def _roles(column: str, rows: Sequence[Mapping[str, Any]]) -> set[str]:
    """Who speaks in its single-turn conversations."""
    return {role for row in rows for role in turns_by_role(row[column]) or {}}


def _is_text(column: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it holds text or numbers, can be named in a template, and is not empty."""
    values = [row[column] for row in rows if row[column] is not None]
    can_be_named = not set(column) & set("{}[]!:") and column != ""
    return can_be_named and bool(values) and all(isinstance(value, str | int | float) for value in values)


def _holds_turns(column: str, rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it holds lists of turns, as TRL's conversational prompts do."""
    turns = [value[0] for row in rows if isinstance(value := row[column], list) and value]
    return bool(turns) and all(
        isinstance(turn, dict) and any(turn.keys() >= set(pair) for pair in PAIRS) for turn in turns
    )
