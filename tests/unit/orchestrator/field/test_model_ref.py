"""Names of models: parsed, printed, and refused."""

import pytest

from cluster.records import Record
from orchestrator.field.model_ref import BASE, ModelRef


class Holder(Record):
    model: ModelRef


@pytest.mark.parametrize("text", ["base", "lora-r16@2", "full.3a@12", "odd@name@7"])
def test_what_is_printed_is_parsed(text: str):
    model = ModelRef.parse(text)
    assert str(model) == text
    assert Holder.model_validate_json(Holder(model=model).model_dump_json()).model == model
    assert Holder(model=model).model_dump(mode="json") == {"model": text}


@pytest.mark.parametrize("text", ["", "bas", "lora", "@2", "lora@", "lora@0", "lora@-1", "lora@x", "lora@²"])
def test_what_names_no_model_is_refused(text: str):
    with pytest.raises(ValueError, match="names no model"):
        ModelRef.parse(text)


def test_in_words():
    assert BASE.in_words == "the base model"
    assert ModelRef("a", 2).in_words == "a of round 2"
    assert (BASE.is_base, ModelRef("a", 2).is_base) == (True, False)
