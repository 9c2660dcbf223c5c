"""The arms of `make experiment` that Ray Tune runs, on a tiny model."""

from pathlib import Path

import pytest

from tests.experiments.arms import arms, measured
from tests.experiments.cells import Cell
from tests.experiments.sizes import Setting
from tests.tiny import tiny_model, tiny_rows, write_jsonl

TOKENS = 20_000

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", ["asha", "tpe", "pbt"])
def test_trials_share_the_tokens_of_one_arm(tmp_path: Path, name: str):
    tiny_model(tmp_path / "model")
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(400))
    setting = Setting(
        "tiny", "Tiny", str(tmp_path / "rows.jsonl"), TOKENS, base=str(tmp_path / "model"), prompt="{instruction} \n",
        completion="{response}", held_out=60, max_tokens=32,
    )  # fmt: skip
    work = tmp_path / name
    work.mkdir()
    result = measured(arms(False)[name], name, Cell(setting, 3, tmp_path / "cell").make(), work, lambda: 0.0)
    assert 0.85 * TOKENS < result.tokens < 1.1 * TOKENS  # trials ask the ledger every thousand tokens
    assert result.padded_tokens >= result.tokens
    assert result.curve[-1].validation == pytest.approx(result.validation, abs=1e-6)
    assert result.curve[-1].test == pytest.approx(result.test, abs=1e-6)
