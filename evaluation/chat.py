"""A reference's own chat format, on the terms that every other model has: the same day for all, and one stop token.

A template may write today's date into the prompt, and the loss would drift from day to day. What ends a turn may be
another token than the tokenizer's eos; a model that was taught one would be scored on the other.
"""

from datetime import datetime
from typing import Any

from cluster.errors import UserError
from cluster.text import plain

DAY = datetime(2024, 7, 26)
"""The day that every chat is on."""
ANSWER = "An answer to be found again"


def _without_clock() -> str:
    """A template's beginning, after which `strftime_now`, transformers' own clock, says that day.

    transformers lets nobody pass a function to a template, so it is written in the template's language.
    """
    directives = ["-d", "-m", "-H", "-I", "-j", *"aAbBcdDFHIjmMpSTUwWxXyYZ"]
    replaced = "".join(f"|replace('%{one}', '{DAY.strftime(f'%{one}')}')" for one in directives)
    return "{% macro strftime_now(form) %}{{ form" + replaced + " }}{% endmacro +%}"


NO_CLOCK = _without_clock()


def as_chat(prompt: str, tokenizer: Any) -> str:
    """The prompt as a user's turn in the tokenizer's own template, up to where the answer begins. UserError without."""
    return _rendered([_turn("user", prompt.strip())], tokenizer, add_generation_prompt=True)


def stop_id(tokenizer: Any, chat: bool) -> int | None:
    """The token that ends a completion and counts as one of it: eos; in a chat, what the template ends a turn with."""
    eos: int | None = tokenizer.eos_token_id
    if not chat:
        return eos
    text = _rendered([_turn("user", "A question"), _turn("assistant", ANSWER)], tokenizer)
    special = {*tokenizer.all_special_ids, *(i for i, one in tokenizer.added_tokens_decoder.items() if one.special)}
    after = tokenizer(text.partition(ANSWER)[2], add_special_tokens=False)["input_ids"]
    return next((i for i in after if i in special), eos)


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


def _rendered(turns: list[dict[str, str]], tokenizer: Any, **settings: Any) -> str:
    from jinja2 import TemplateError

    day = DAY.strftime("%d %b %Y")  # for templates that take it, as Llama 3.2's does
    try:
        template = NO_CLOCK + tokenizer.get_chat_template()
        text: str = tokenizer.apply_chat_template(
            turns, chat_template=template, tokenize=False, date_string=day, **settings
        )
    except (ValueError, TemplateError) as error:
        what = "that can be used" if tokenizer.chat_template else "(prompt: plain does without)"
        raise UserError(f"{tokenizer.name_or_path}: has no chat template {what}: {plain(error, 80)}") from error
    return text
