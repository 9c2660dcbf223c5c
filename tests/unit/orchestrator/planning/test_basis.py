"""What an automatic field starts from: shapes from config.json alone, the data's size, the machine."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import UserError
from cluster.machine import Machine
from competitors.sft.recipe import SftRecipe
from orchestrator import cli
from orchestrator.config.tournament import TournamentConfig
from orchestrator.planning.basis import make_field, sampled, shape_of
from orchestrator.planning.model_shape import describe_folder
from tests.tiny import tiny_model, tiny_rows, write_jsonl

FIELD = [SftRecipe(name="a", kind="sft", learning_rate=1e-3)]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "base", tie_word_embeddings=False)


def without_weights(base: Path, folder: Path) -> Path:
    folder.mkdir()
    shutil.copy(base / "config.json", folder)
    return folder


def test_a_config_alone_tells_the_shape_of_a_llama(base: Path, tmp_path: Path):
    whole, bare = describe_folder(base), describe_folder(without_weights(base, tmp_path / "bare"))
    assert whole is not None
    assert bare is not None
    assert bare.tensors == whole.tensors
    assert bare.context == whole.context == 64


def test_a_hub_models_config_is_fetched_and_no_weights(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, str]] = []

    def fetched(spec: str, file: str) -> str:
        asked.append((spec, file))
        return str(base / file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetched)
    assert shape_of("organisation/model", "BASE", tmp_path) == describe_folder(base)
    assert asked == [("organisation/model", "config.json")]


def test_weights_that_are_cut_off_are_one_line(base: Path, tmp_path: Path):
    (without_weights(base, tmp_path / "cut") / "model.safetensors").write_bytes(b"\x10")
    with pytest.raises(UserError, match=r"^BASE: .*/cut/model\.safetensors: cannot be read: it is cut off"):
        shape_of("cut", "BASE", tmp_path)


def config(folder: Path, **changes: Any) -> TournamentConfig:
    """A config whose base has no weights, and whose competitors stand in for a field."""
    plain = {
        "name": "t",
        "data": {"source": "rows.jsonl", "prompt": "{instruction}", "completion": "{response}"}
        | {"validation": 10, "test": 10, "max_tokens": 32},
        "lineages": [{"name": "l", "base": "bare"}],
        "rounds": 3,
        "budget": {"total_tokens": 10_000},
        "competitors": [{"name": "auto", "kind": "sft", "learning_rate": 1e-3}],
    }
    return TournamentConfig.model_validate(plain | changes)


def test_a_field_needs_neither_weights_nor_a_tokenizer(base: Path, tmp_path: Path):
    without_weights(base, tmp_path / "bare")
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(100))
    whole = make_field(config(tmp_path), tmp_path)
    equal = make_field(config(tmp_path, budget={"tokens": 10_000}), tmp_path)
    assert {recipe.kind for recipe in whole} == {"sft"}
    assert {recipe.model_dump()["schedule_spans"] for recipe in whole} == {"round"}
    assert {recipe.model_dump()["schedule_spans"] for recipe in equal} == {"lineage"}


def test_a_field_for_a_cluster_on_paper_is_for_its_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    seen: list[Machine] = []
    monkeypatch.setattr("orchestrator.planning.basis.make_recipes", lambda basis: seen.append(basis.machine) or FIELD)
    tiny_model(tmp_path / "bare")
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(100))
    raw = config(tmp_path).model_dump(mode="json", by_alias=True, exclude={"competitors_by"})
    (tmp_path / "t.yaml").write_text(json.dumps(raw | {"competitors": "auto", "budget": {"total_tokens": 100_000}}))
    monkeypatch.setattr("sys.argv", ["tournament", "plan", str(tmp_path / "t.yaml"), "--cluster", "8xH100"])
    with pytest.raises(SystemExit):
        cli.main()
    assert "every entry can be placed on what 8xH100 allows" in capsys.readouterr().out
    assert [(machine.gpus, machine.gpu_kind) for machine in seen] == [(8, "H100")]


def test_a_template_that_names_no_column_is_one_line(base: Path, tmp_path: Path):
    without_weights(base, tmp_path / "bare")
    (tmp_path / "rows.jsonl").write_text(json.dumps({"text": "a"}) + "\n")
    with pytest.raises(UserError, match="names the column 'instruction'; the columns are text"):
        make_field(config(tmp_path), tmp_path)


def test_a_sample_is_spread_over_the_rows():
    from datasets import Dataset

    rows = sampled(Dataset.from_dict({"n": list(range(10_000))}))["n"]
    assert 2000 <= len(rows) <= 2500
    assert max(rows) > 9_900
