"""From what a config calls a model to a folder with one."""

from pathlib import Path

import pytest

from cluster.errors import UserError
from orchestrator.planning.model_sources import check, check_folder, locate
from tests.tiny import tiny_model


def test_a_folder_is_looked_for_beside_the_config_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "here" / "m").mkdir(parents=True)
    (tmp_path / "there" / "m").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "there")
    assert locate("m", tmp_path / "here") == (tmp_path / "here" / "m").resolve()
    assert locate("m", tmp_path) == (tmp_path / "there" / "m").resolve()
    assert locate("organisation/name", tmp_path) is None


def test_a_whole_model_passes_and_hub_names_and_built_in_ones_are_left_for_later(tmp_path: Path):
    folder = tiny_model(tmp_path / "model")
    assert check(str(folder), tmp_path, "base") == folder.resolve()
    assert check("organisation/name", tmp_path, "base") is None
    assert check("builtin:tiny-bpe", tmp_path, "base") is None


@pytest.mark.parametrize(
    ("spec", "said"),
    [("builtin:tiny-bpf", 'did you mean "tiny-bpe"'), ("./nowhere", "there is no such folder"), ("/a/b/c", "no such")],
)
def test_what_is_no_model_is_said_with_its_key(tmp_path: Path, spec: str, said: str):
    with pytest.raises(UserError, match=r"^lineages\[l\]\.base: ") as error:
        check(spec, tmp_path, "lineages[l].base")
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("missing", "said"),
    [("config.json", "no config.json"), ("model.safetensors", "no weights"), ("tokenizer.json", "no tokenizer")],
)
def test_a_model_that_lacks_something_is_said(tmp_path: Path, missing: str, said: str):
    folder = tiny_model(tmp_path / "model")
    (folder / missing).unlink()
    with pytest.raises(UserError, match=said):
        check_folder(folder, "base")
