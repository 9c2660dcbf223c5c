"""Shapes of models that are not here: as large as their names say, and only where nothing better is known."""

from pathlib import Path

import pytest

from orchestrator.planning import model_sources
from orchestrator.planning.model_shape import describe_base
from tests.tiny import tiny_model

LLAMA = "meta-llama/Llama-3.2-3B"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("Llama-3.2-1B", 1_235_814_400), (LLAMA.partition("/")[2], 3_212_749_824), ("Llama-3.1-8B", 8_030_261_248)],
)
def test_parameters_are_those_that_the_hub_counts(name: str, parameters: int):
    shape = describe_base(f"meta-llama/{name}", Path())
    assert shape is not None
    assert shape.parameters == parameters
    assert shape.stored_bytes == 2 * parameters


def test_what_lies_here_or_in_the_cache_is_read_instead(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    found = describe_base(LLAMA, tmp_path)
    assert found is not None
    assert found.hidden == 3072
    tiny = tiny_model(tmp_path / "tiny")
    monkeypatch.setattr(model_sources, "cached", lambda spec: tiny if spec == LLAMA else None)
    found = describe_base(LLAMA, tmp_path)
    assert found is not None
    assert found.hidden < 3072
    tiny_model(tmp_path / LLAMA)
    monkeypatch.undo()
    found = describe_base(LLAMA, tmp_path)
    assert found is not None
    assert found.hidden < 3072


def test_the_cache_is_asked_for_names_of_the_hub_alone():
    assert model_sources.cached("../not/a name") is None
    assert model_sources.cached("nobody/nothing") is None
