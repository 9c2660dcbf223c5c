"""A chat is on one day and ends with the token that its template ends a turn with."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from cluster.errors import UserError
from evaluation.chat import DAY, as_chat, stop_id
from evaluation.data.splits import Row
from evaluation.evaluator import score_model
from evaluation.scoring import encode_rows
from tests.tiny import tiny_model, tiny_tokenizer
from tests.unit.evaluation.submissions.making import held_out, job

DATED = {
    "given": "{{ date_string }}",
    "asked for": "{{ strftime_now('%d %b %Y') }}",
    "asked for in a macro": "{% macro today() %}{{ strftime_now('%d' + ' %b %Y') }}{% endmacro %}{{ today() }}",
    "as Llama 3.2 does": (
        "{%- if not date_string is defined %}{%- if strftime_now is defined %}{%- set date_string = "
        "strftime_now('%d %b %Y') %}{%- else %}{%- set date_string = 'never' %}{%- endif %}{%- endif %}"
        "{{ date_string }}"
    ),
}
TURNS = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}END{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
LLAMA_2 = (
    "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]"
    "{% else %} {{ m.content }} </s>{% endif %}{% endfor %}"
)


def tokenizer(template: str, *special: str) -> Any:
    made = tiny_tokenizer()
    made.add_special_tokens({"additional_special_tokens": list(special)})
    made.chat_template = template
    return made


@pytest.mark.parametrize("template", DATED)
def test_every_chat_is_on_the_same_day(template: str):
    text = as_chat(" the cat \n", tokenizer(DATED[template] + " {{ messages[0]['content'] }}"))
    assert text == "26 Jul 2024 the cat"


def test_the_day_is_the_day_however_it_is_written():
    for form in ("%A, %B %-d %Y", "%Y-%m-%d", "%F", "%d/%m/%y", "%H:%M"):
        text = as_chat("", tokenizer("\n  {{ strftime_now('" + form + "') }}"))
        assert text == "\n  " + DAY.strftime(form)  # and the template's own white space stays


@pytest.mark.parametrize(
    ("template", "special", "stop"),
    [
        (TURNS.replace("END", "<end_of_turn>"), ["<end_of_turn>"], "<end_of_turn>"),  # Gemma's is not its eos
        (TURNS.replace("END", " \n<|im_end|>\n"), ["<|im_start|>", "<|im_end|>"], "<|im_end|>"),
        (LLAMA_2, [], "</s>"),
        ("{{ messages[0]['content'] }} ", [], "</s>"),  # knows no answers: eos
        (TURNS.replace("END", " . "), [], "</s>"),
    ],
)
def test_a_turn_ends_with_the_token_of_its_template(template: str, special: list[str], stop: str):
    made = tokenizer(template, *special)
    assert made.convert_ids_to_tokens(stop_id(made, chat=True)) == stop
    assert made.convert_ids_to_tokens(stop_id(made, chat=False)) == "</s>"
    for chat, expected in ((True, stop), (False, "</s>")):
        (row,) = encode_rows([Row("1", "the cat", "is red")], made, 64, chat=chat)
        counted = made.convert_ids_to_tokens(row.ids[row.start :])
        assert counted == ["is", "red", expected]  # one stop token, whoever it is
        assert row.bytes == len("is red")


def test_without_a_stop_token_none_counts():
    made = tiny_tokenizer()
    made.eos_token = None
    (row,) = encode_rows([Row("1", "the cat", "is red")], made, 64)
    assert made.convert_ids_to_tokens(row.ids[row.start :]) == ["is", "red"]


def test_the_scorecard_names_the_stop_token(tmp_path: Path):
    folder = tiny_model(tmp_path / "m")
    held_out(tmp_path / "held_out")
    assert score_model(job(tmp_path, folder)).stop == "</s>"
    own = AutoTokenizer.from_pretrained(folder)
    own.chat_template = TURNS.replace("END", "<unk>")
    own.save_pretrained(folder)
    assert score_model(job(tmp_path, folder, prompt="chat")).stop == "<unk>"


@pytest.mark.parametrize("template", [None, "{% if %}"])
def test_a_tokenizer_without_a_template_is_the_users_to_mend(tmp_path: Path, template: str | None):
    model = tiny_model(tmp_path / "m")
    if template is not None:
        (model / "chat_template.jinja").write_text(template)
    held_out(tmp_path / "held_out")
    with pytest.raises(UserError, match="m: has no chat template "):
        score_model(job(tmp_path, model, prompt="chat"))


def test_a_damaged_tokenizer_is_the_users_to_mend(tmp_path: Path):
    model = tiny_model(tmp_path / "m")
    (model / "tokenizer.json").write_text("{}")
    held_out(tmp_path / "held_out")
    with pytest.raises(UserError, match="m: its tokenizer cannot be loaded: "):
        score_model(job(tmp_path, model))
