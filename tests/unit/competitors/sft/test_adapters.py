"""Adapters in a config, and how names of modules are matched."""

from typing import Any

import pytest
from pydantic import ValidationError

from competitors.sft.adapters import METHODS, Adapter, matches, names_target


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        ({"method": "lorra"}, 'unknown method "lorra"; did you mean "lora"?'),
        ({"method": "ia3", "rank": 8}, "ia3 has no rank"),
        ({"method": "ia3", "lora_plus_ratio": 4}, "lora_plus_ratio: ia3 has none"),
        ({"method": "ia3", "alpha": 4}, "alpha: ia3 has none"),
        ({"method": "lora", "feedforward_modules": ["mlp"]}, "feedforward_modules: a key of ia3, not of lora"),
        ({"method": "orthogonal", "rank": 3}, "orthogonal needs an even rank, 3 is odd"),
        ({"method": "mica", "lora_plus_ratio": 4}, "mica trains A only"),
        ({"method": "lora", "lora_plus_ratio": 0.5}, "greater than or equal to 1"),
    ],
)
def test_bad_adapters_are_refused_when_the_config_is_read(adapter: dict[str, Any], message: str):
    with pytest.raises(ValidationError) as raised:
        Adapter.model_validate(adapter)
    assert message in str(raised.value)


def test_defaults_survive_a_round_trip():
    for method in METHODS:
        adapter = Adapter(method=method)
        assert Adapter.model_validate(adapter.model_dump()) == adapter
        assert adapter.rank == (None if method == "ia3" else 16)


def test_names_of_modules():
    name = "model.layers.12.mlp.up_proj"
    assert all(matches(p, name) for p in ("mlp", "layers.1[0-5]", "layers.*.mlp", "model.layers.12", "up_*", "*.mlp"))
    assert not any(matches(p, name) for p in ("layers.1", "ml", "layers.[0-9]", "proj"))
    assert names_target(["up_proj"], name)
    assert not names_target(["proj"], name)
    assert names_target(r".*\.(up|down)_proj", name)
