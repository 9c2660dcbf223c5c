"""What is checked and made before anything is placed."""

import json
from pathlib import Path

import pytest

from cluster.errors import UserError
from evaluation.data.splits import Manifest, read_held_out, read_split
from orchestrator.planning import preparation
from orchestrator.planning.preparation import bring_models, check_inputs, make_data
from tests.faked import ROWS, faked_config


def test_mistakes_name_the_file_and_the_key(tmp_path: Path):
    file = tmp_path / "mine.yaml"
    check_inputs(faked_config(tmp_path), file)
    with pytest.raises(UserError, match=r"mine\.yaml: lineages\[l\]\.base: \./nowhere: there is no such folder"):
        check_inputs(faked_config(tmp_path, lineages=[{"name": "l", "base": "./nowhere"}]), file)
    broken = [{"name": "a", "kind": "python", "entrypoint": "nowhere:f"}]
    with pytest.raises(UserError, match=r"mine\.yaml: competitors\[a\]\.entrypoint nowhere:f does not import"):
        check_inputs(faked_config(tmp_path, competitors=broken), file)


def test_data_is_split_as_asked(tmp_path: Path):
    make_data(faked_config(tmp_path), tmp_path / "mine.yaml", tmp_path / "data")
    assert len(read_split(tmp_path / "data" / "held_out" / "validation.parquet")) == ROWS
    data = {"source": str(tmp_path / "rows.jsonl"), "prompt": "{nothing}", "completion": "{response}"}
    with pytest.raises(UserError, match=r"mine\.yaml: data\.prompt"):
        make_data(faked_config(tmp_path, data=data), tmp_path / "mine.yaml", tmp_path / "other")


def test_the_group_and_the_switch_of_the_config_are_meant(tmp_path: Path):
    data = {"source": str(tmp_path / "rows.jsonl"), "prompt": "{instruction}", "completion": "{response}"}
    given = data | {"validation": 6, "test": 3, "group": "talk", "near_duplicates": "keep"}
    config = faked_config(tmp_path, data=given)
    rows = [{"instruction": f"say {n}", "response": f"{n}", "talk": n // 3} for n in range(30)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    make_data(config, tmp_path / "mine.yaml", tmp_path / "data")
    manifest = Manifest.read(tmp_path / "data" / "manifest.json")
    assert manifest.near_duplicates is not None
    assert (manifest.group, manifest.near_duplicates.handling) == ("talk", "keep")
    assert set(read_held_out(tmp_path / "data" / "held_out" / "test.parquet")[1].tolist()) == {0}


def test_only_hub_models_are_downloaded_each_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[tuple[str, Path]] = []
    monkeypatch.setattr(preparation.model_sources, "download", lambda spec, folder, key: asked.append((spec, folder)))
    lineages = [{"name": n, "base": b} for n, b in (("a", "org/model"), ("b", "builtin:tiny-bpe"))]
    config = faked_config(tmp_path, lineages=[*lineages, {"name": "c", "base": str(tmp_path / "base")}])
    bring_models(config, tmp_path / "mine.yaml", lambda spec: tmp_path / spec.replace("/", "-"))
    assert asked == [("org/model", tmp_path / "org-model")]


def test_mlflows_schemes_are_those_of_its_own_registry():
    from mlflow.tracking._tracking_service.utils import _tracking_store_registry

    assert set(preparation.MLFLOW_SCHEMES) == set(_tracking_store_registry._registry)
