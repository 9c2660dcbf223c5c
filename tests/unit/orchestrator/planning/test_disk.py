"""What a run directory comes to on disk, by hand for a base of a thousand parameters."""

from pathlib import Path
from typing import Any

import pytest

from orchestrator.field.next_round import first_roster
from orchestrator.planning.disk import disk, in_words
from orchestrator.planning.model_shape import BaseShape, llama, size_of
from tests.fabricate import fabricate

TENSORS = llama(1, 8, 16, 8, 32, tied=True)
PARAMETERS = sum(size_of(shape) for shape in TENSORS.values())
BASE = BaseShape(
    layers=1, hidden=8, intermediate=16, heads=1, key_value_size=8, vocabulary=32, stored_bytes=2 * PARAMETERS,
    tensors=TENSORS,
)  # fmt: skip
LORA = 4 * (8 + 8) + 2 * (8 + 16) + (16 + 8)
"""A LoRA of rank 1 on every linear layer."""
FULL = {"name": "full", "kind": "sft", "learning_rate": 1e-3}
OWN, SOUP = {"name": "own", "kind": "command", "run": "true"}, {"name": "soup", "kind": "soup"}
SEARCH = {"name": "search", "kind": "search", "recipe": {"adapter": {"method": "lora"}}} | {
    "space": {"adapter.rank": [1, 2], "learning_rate": [1e-3]}
}
ADAPTER = FULL | {"name": "lora", "adapter": {"method": "lora", "rank": 1}}


@pytest.mark.parametrize(
    ("competitors", "kept", "passing"),
    [
        ([FULL], 4 * PARAMETERS, 2 * 12 * PARAMETERS),
        ([FULL | {"optimizer": "lion_8bit"}], 4 * PARAMETERS, 2 * 5 * PARAMETERS),
        ([FULL | {"score_weights": "tail_average"}], 4 * PARAMETERS, 2 * 16 * PARAMETERS),
        ([ADAPTER], 4 * LORA + 4 * PARAMETERS, 2 * 12 * LORA),
        ([FULL, SOUP], 8 * PARAMETERS, 2 * 12 * PARAMETERS + 12 * PARAMETERS),
        ([SEARCH], 4 * 2 * LORA + 4 * PARAMETERS, 2 * 12 * 2 * LORA),
        ([FULL, OWN], 8 * PARAMETERS, 2 * 12 * PARAMETERS + 4 * PARAMETERS),
    ],
)
def test_two_rounds(tmp_path: Path, competitors: list[dict[str, Any]], kept: int, passing: int):
    config, _ = fabricate(tmp_path / "run", lineages=("a",), competitors=competitors, references=[], settled={})
    config = config.model_copy(
        update={"lineages": [config.lineages[0].model_copy(update={"base": "builtin:tiny-bpe"})]}
    )
    rounds = {"a": [first_roster("a", config.competitors, [])] * 2}
    found = disk(config, tmp_path, rounds, {"a": BASE})
    assert found is not None
    assert (found.kept * 2**30, found.round * 2**30) == (2 * kept, passing)
    assert disk(config, tmp_path, rounds, {"a": None}) is None
    assert in_words(found).startswith("disk: at most 0.0 GB in the run directory")


def test_models_of_the_hub_are_fetched_once(tmp_path: Path):
    references = [{"name": "i", "model": "meta-llama/Llama-3.2-3B-Instruct"}, {"name": "unknown", "model": "who/knows"}]
    settings = {"lineages": [{"name": "a", "base": "meta-llama/Llama-3.2-3B"}]}
    for count in (1, 2):
        config, _ = fabricate(
            tmp_path / str(count), lineages=(), settings=settings, competitors=[FULL], references=references[:count],
            settled={},
        )  # fmt: skip
        found = disk(config, tmp_path, {"a": []}, {"a": BASE})
        assert (found is None) == (count == 2)
        assert found is None or 2 * 5.9 < found.kept < 2 * 6.1
