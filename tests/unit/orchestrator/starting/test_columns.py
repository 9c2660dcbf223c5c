"""Prompt and completion are found by the names that published data use; what cannot be told is refused in one line."""

from typing import Any

import pytest

from cluster.errors import UserError
from orchestrator.starting.columns import find_templates

TURNS = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
SHARED = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "hello"}]
WORK = {
    "Alpaca": ({"instruction": "a", "input": "b", "output": "c"}, "{instruction}\n{input}\n", "{output}"),
    "an input that is always empty": ({"instruction": "a", "input": "", "output": "c"}, "{instruction}\n", "{output}"),
    "LaMini": ({"instruction": "a", "response": "c", "instruction_source": "d"}, "{instruction}\n", "{response}"),
    "TRL": ({"prompt": "a", "completion": "c"}, "{prompt}\n", "{completion}"),
    "GSM8K": ({"question": "a", "answer": "c"}, "{question}\n", "{answer}"),
    "Dolly": (
        {"instruction": "a", "context": "b", "response": "c", "category": "d"},
        "{instruction}\n{context}\n",
        "{response}",
    ),
    "FLAN": ({"inputs": "a", "targets": "c", "task": "d"}, "{inputs}\n", "{targets}"),
    "input and output alone": ({"input": "a", "output": "c"}, "{input}\n", "{output}"),
    "capitals": ({"Question": "a", "Answer": "c"}, "{Question}\n", "{Answer}"),
    "a number to answer": ({"question": "a", "answer": 7}, "{question}\n", "{answer}"),
    "messages": ({"messages": TURNS, "id": 3}, "{messages[user]}\n", "{messages[assistant]}"),
    "ShareGPT": ({"conversations": SHARED}, "{conversations[user]}\n", "{conversations[assistant]}"),
    "a system's turn": (
        {"prompt": "a", "messages": [{"role": "system", "content": "be brief"}, *TURNS]},
        "{messages[system]}\n{messages[user]}\n",
        "{messages[assistant]}",
    ),
    "TRL's turns": (
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        "{prompt[user]}\n",
        "{completion[assistant]}",
    ),
    "messages beside": ({"prompt": "a", "completion": "c", "messages": TURNS}, "{prompt}\n", "{completion}"),
}


@pytest.mark.parametrize("name", WORK)
def test_known_names(name: str):
    row, prompt, completion = WORK[name]
    found = find_templates("rows.jsonl", [row, dict.fromkeys(row), row])
    assert (found.prompt, found.completion) == (prompt, completion)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "text": ({"text": "a", "source_url": "b"}, "text, source_url: no prompt and no completion among them"),
    "no completion": ({"instruction": "a", "label": "b"}, "instruction, label: no completion among them"),
    "no prompt": ({"text": "a", "output": "b"}, "text, output: no prompt among them"),
    "several turns": ({"messages": 2 * TURNS, "id": 3}, "no single-turn conversations of user and assistant in mess"),
    "no answer": ({"conversations": SHARED[:1]}, "no single-turn conversations of user and assistant in conversations"),
    "pairs of preference": ({"chosen": TURNS, "rejected": TURNS}, "of user and assistant in chosen, rejected"),
    "answers in lists": ({"question": "a", "answers": ["b", "c"]}, "no completion among them"),
    "an empty column": ({"prompt": "a", "completion": None}, "no completion among them"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_told_is_one_line_with_the_columns(name: str):
    row, message = REFUSED[name]
    with pytest.raises(UserError) as caught:
        find_templates("rows.jsonl", [row])
    text = str(caught.value)
    assert text.startswith(f"DATA: rows.jsonl has the columns {', '.join(row)}")
    assert message in text
    assert "\n" not in text
