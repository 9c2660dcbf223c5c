"""The bases that come with the project: small, plain folders, the same bytes each time."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from cluster.digest import model_sha256
from cluster.errors import UserError
from competitors.builtin.bases import BUILTIN_BASES, build

ANY_TEXT = ["The opposite of hot is cold.", "two  spaces\nand\ta line\n", "Zürich, 漢字, 🎉, ~^|", "x", ""]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("bases")
    for name in BUILTIN_BASES:
        build(name, root / name, steps=2)
    return {name: root / name for name in BUILTIN_BASES}


def test_importing_is_light() -> None:
    code = "import sys, competitors.builtin.bases; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", BUILTIN_BASES)
def test_a_plain_folder_that_loads_and_writes(folders: dict[str, Path], name: str) -> None:
    model = AutoModelForCausalLM.from_pretrained(folders[name])
    tokenizer = AutoTokenizer.from_pretrained(folders[name])
    assert 300_000 <= model.num_parameters() <= 1_000_000
    assert model.config.tie_word_embeddings
    assert model.config.vocab_size == len(tokenizer)
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id
    ids = tokenizer("The dog", return_tensors="pt").input_ids
    assert model.generate(ids, max_new_tokens=4, do_sample=False).shape[1] > ids.shape[1]


@pytest.mark.parametrize("name", BUILTIN_BASES)
def test_the_tokenizer_encodes_any_text(folders: dict[str, Path], name: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(folders[name])
    for text in ANY_TEXT:
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert tokenizer.decode(ids) == text
        assert tokenizer.unk_token_id not in ids
    assert len(tokenizer("The opposite side of the park is cold.", add_special_tokens=False).input_ids) <= 11


def test_one_begins_with_a_token_of_its_own_and_the_other_does_not(folders: dict[str, Path]) -> None:
    tokenizers = [AutoTokenizer.from_pretrained(folder) for folder in folders.values()]
    begins = [tokenizer.bos_token_id for tokenizer in tokenizers]
    assert sorted(begin is None for begin in begins) == [False, True]
    for tokenizer, begin in zip(tokenizers, begins, strict=True):
        plain = tokenizer("The dog", add_special_tokens=False).input_ids
        assert tokenizer("The dog").input_ids == ([begin] if begin is not None else []) + plain
        assert None not in (tokenizer.eos_token_id, tokenizer.pad_token_id)
        assert tokenizer.pad_token_id != tokenizer.eos_token_id


def test_tokenizers_and_shapes_differ(folders: dict[str, Path]) -> None:
    configs = [AutoModelForCausalLM.from_pretrained(folder).config for folder in folders.values()]
    assert len({config.vocab_size for config in configs}) == len({config.hidden_size for config in configs}) == 2


def test_another_process_builds_the_same_bytes(folders: dict[str, Path], tmp_path: Path) -> None:
    """Another process, since what varies (hash seeds, threads) varies between processes."""
    name = "tiny-unigram"
    code = f"from pathlib import Path; from competitors.builtin.bases import build; build({name!r}, Path('x'), steps=2)"
    path = str(Path(__file__).parents[4])
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": path, "HOME": "/tmp"}, check=True)
    assert model_sha256(tmp_path / "x") == model_sha256(folders[name])


def test_building_leaves_the_callers_torch_as_it_was(tmp_path: Path) -> None:
    torch.manual_seed(5)
    state, threads = torch.random.get_rng_state(), torch.get_num_threads()
    build("tiny-bpe", tmp_path / "x", seed=1, steps=0)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_unknown_name_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r'"tiny-bpe"'):
        build("tiny-bep", tmp_path / "x")
