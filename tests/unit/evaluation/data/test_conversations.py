"""Templates take what a role says in a single-turn conversation; other conversations are dropped and counted."""

import json
from pathlib import Path
from typing import Any

import datasets
import pytest

from cluster.errors import UserError
from evaluation.data.rendering import Rendered, render
from evaluation.data.sources import load
from evaluation.data.splits import file_of, make_splits, read_split

PROMPT, COMPLETION = "{messages[system]}|{messages[user]}\n", "{messages[assistant]}"


def turns(*said: str) -> list[dict[str, str]]:
    """`user: hi` as a turn."""
    return [dict(zip(("role", "content"), one.split(": ", 1), strict=True)) for one in said]


def rendered(rows: list[dict[str, Any]], prompt: str, completion: str, folder: Path) -> list[tuple[str, str] | None]:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return list(Rendered(load("rows.jsonl", folder), prompt, completion))


SHAPES = {
    "one turn": (("user: hi", "assistant: hello"), ("|hi\n", "hello")),
    "a system before": (("system: be brief", "user: hi", "assistant: yo"), ("be brief|hi\n", "yo")),
    "two turns": (("user: a", "assistant: b", "user: c", "assistant: d"), None),
    "no answer": (("user: a",), None),
    "two questions": (("user: a", "user: b", "assistant: c"), None),
    "the answer first": (("assistant: a", "user: b"), None),
    "a system behind": (("user: a", "system: b", "assistant: c"), None),
    "a tool": (("user: a", "tool: b", "assistant: c"), None),
    "nobody": ((), None),
}


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str, tmp_path: Path) -> None:
    said, expected = SHAPES[name]
    rows = [{"messages": turns("user: 1", "assistant: 2")}, {"messages": turns(*said)}, {"messages": None}]
    assert rendered(rows, PROMPT, COMPLETION, tmp_path) == [("|1\n", "2"), expected, None]


def test_from_and_value(tmp_path: Path) -> None:
    talk = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello {braces}"}]
    system = [{"from": "system", "value": "s"}]
    rows = [{"conversations": talk}, {"conversations": system + talk}, {"conversations": talk + talk}]
    prompt, completion = "{conversations[system]}|{conversations[user]}", "{conversations[assistant]}"
    expected = [("|hi", "hello {braces}"), ("s|hi", "hello {braces}"), None]
    assert rendered(rows, prompt, completion, tmp_path) == expected


def test_prompt_and_completion_of_turns(tmp_path: Path) -> None:
    long = turns("user: a", "assistant: b", "user: c")
    rows = [{"prompt": turns("user: hi"), "completion": turns("assistant: hello")}]
    rows.append({"prompt": long, "completion": turns("assistant: d")})
    assert rendered(rows, "{prompt[user]}\n", "{completion[assistant]}", tmp_path) == [("hi\n", "hello"), None]


def test_a_column_of_that_very_name_is_meant(tmp_path: Path) -> None:
    assert rendered([{"a[user]": "x", "b": "y"}], "{a[user]}", "{b}", tmp_path) == [("x", "y")]


def test_those_of_several_turns_are_counted_and_in_no_split(tmp_path: Path) -> None:
    single = [{"group": i % 40, "messages": turns(f"user: question {i}", f"assistant: {i * i}")} for i in range(80)]
    several = [{"group": i, "messages": 2 * turns("user: secret", f"assistant: {i}")} for i in range(7)]
    mixed = [row for pair in zip(several, single, strict=False) for row in pair] + single[len(several) :]
    dataset = datasets.Dataset.from_list(mixed)
    prompt, completion = "{messages[user]}\n", "{messages[assistant]}"
    manifest = make_splits(dataset, prompt, completion, 20, 10, 0, tmp_path, "here", group="group")
    assert manifest.dropped == {"not a single-turn conversation": 7}
    assert manifest.rows_read == 87 == sum(manifest.counts.values()) + 7
    rows = [row for split in manifest.counts for row in read_split(tmp_path / file_of(split))]
    numbers = sorted(int(row.prompt.removeprefix("question ")) for row in rows)
    assert numbers == list(range(80))
    assert all(int(row.completion) == int(row.prompt.split()[1]) ** 2 for row in rows)
    assert len(list(render(dataset, prompt, completion))) == 80
    flat = [{"p": f"question {i}", "c": f"{i * i}", "g": i % 40} for i in range(80)]
    as_text = datasets.Dataset.from_list(flat)
    same = make_splits(as_text, "{p}\n", "{c}", 20, 10, 0, tmp_path / "b", "here", group="g")
    assert same.fingerprint == manifest.fingerprint
    with pytest.raises(UserError, match=r"after cleaning \(7 dropped: not a single-turn conversation\) there are 80"):
        make_splits(dataset, prompt, completion, 100, 10, 0, tmp_path / "c", "here")


@pytest.mark.parametrize(
    ("value", "completion", "message"),
    [
        (
            turns("user: a"),
            "{x}",
            r"the column 'x', which holds list<.* and not text; write \{x\[user\]\} or",
        ),
        ("a", "{x[assistant]}", r"a turn of the column 'x', which holds string and not lists of role and content"),
        ([{"role": "user", "content": [{"type": "text"}]}], "{x[assistant]}", r"a turn of the column 'x', which holds"),
        ([{"text": "user"}], "{x[assistant]}", r"a turn of the column 'x', which holds list<.*> and not lists of role"),
        (turns("user: a"), "{x[tool]}", r"names the column 'x\[tool\]'; the columns are p, x"),
        (turns("user: a"), "{y[user]}", r"names the column 'y'; the columns are p, x"),
    ],
)
def test_what_cannot_be_taken_is_one_line(value: object, completion: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Rendered(datasets.Dataset.from_list([{"p": "a", "x": value}]), "{p}", completion)
    assert "\n" not in str(caught.value)
