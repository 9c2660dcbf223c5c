"""What counts as a submission, and what becomes of the rest that a program leaves."""

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from cluster.errors import Forfeit
from competitors.output import checkpoints, is_whole, model_form, settle_output


def put(folder: Path, *names: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        (folder / name).write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("names", "form"),
    [
        (("config.json", "model.safetensors"), "full"),
        (("config.json", "model.safetensors.index.json", "model-00001-of-00001.safetensors"), "full"),
        (("adapter_config.json", "adapter_model.safetensors"), "adapter"),
        (("config.json",), None),
        (("model.safetensors",), None),
        (("adapter_config.json",), None),
        (("config.json", "pytorch_model.bin"), None),
    ],
)
def test_model_form(tmp_path: Path, names: tuple[str, ...], form: str | None):
    assert model_form(put(tmp_path / "m", *names)) == form


def test_the_newest_complete_checkpoint_moves_up(tmp_path: Path):
    out = tmp_path / "submission"
    put(out / "checkpoint-9", "config.json", "model.safetensors")
    put(out / "checkpoint-10", "config.json", "model.safetensors")
    (out / "checkpoint-10" / "config.json").write_text('{"newest": 1}')
    put(out / "checkpoint-11", "config.json")
    assert settle_output(out) == "full"
    assert json.loads((out / "config.json").read_text()) == {"newest": 1}
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]


def saved(folder: Path, size: int | None = None) -> Path:
    """A model as safetensors writes it, cut off after `size` bytes as when its program was killed."""
    put(folder, "config.json")
    save_file({"w": torch.zeros(100)}, folder / "model.safetensors")
    whole = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(whole[:size])
    return folder


@pytest.mark.parametrize("size", [0, 4, 40, 400])
def test_a_checkpoint_that_was_cut_off_leaves_its_place_to_the_one_before(tmp_path: Path, size: int):
    out = tmp_path / "submission"
    whole = (saved(out / "checkpoint-9") / "model.safetensors").read_bytes()
    saved(out / "checkpoint-10", size)
    saved(out, size)
    assert settle_output(out) == "full"
    assert (out / "model.safetensors").read_bytes() == whole


def test_a_checkpoint_whose_last_shard_is_not_there_yet_leaves_its_place_too(tmp_path: Path):
    out = tmp_path / "submission"
    saved(out / "checkpoint-9")
    (saved(out / "checkpoint-10") / "model.safetensors").rename(
        out / "checkpoint-10" / "model-00001-of-00002.safetensors"
    )
    index = {"weight_map": {"w": "model-00001-of-00002.safetensors", "v": "model-00002-of-00002.safetensors"}}
    (out / "checkpoint-10" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert settle_output(out) == "full"
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]


def test_a_header_that_claims_the_world_is_not_read(tmp_path: Path):
    folder = put(tmp_path / "m", "config.json")
    with (folder / "model.safetensors").open("wb") as stream:
        stream.write((2**40).to_bytes(8, "little"))
        stream.truncate(2**41)
    assert not is_whole(folder)


def test_where_nothing_is_whole_the_newest_is_handed_in_for_inspection_to_say_why(tmp_path: Path):
    out = tmp_path / "submission"
    saved(out / "checkpoint-9", 40)
    saved(out / "checkpoint-10", 400)
    assert settle_output(out) == "full"
    assert (out / "model.safetensors").stat().st_size == 400


def test_a_model_at_the_top_wins_over_checkpoints(tmp_path: Path):
    out = put(tmp_path / "submission", "adapter_config.json", "adapter_model.safetensors")
    put(out / "checkpoint-3", "config.json", "model.safetensors")
    assert settle_output(out) == "adapter"
    assert not (out / "checkpoint-3").exists()


def test_only_the_submission_stays(tmp_path: Path):
    """What a Trainer leaves beside its model goes; what runs code stays, for inspection to reject."""
    out = tmp_path / "submission"
    saved = ("config.json", "model.safetensors", "tokenizer.model", "merges.txt", "chat_template.jinja")
    put(out / "checkpoint-7", *saved, "optimizer.pt", "rng_state_0.pth", "training_args.bin", "README.md", "code.py")
    put(out / "checkpoint-²", "config.json", "model.safetensors")
    put(out / "runs", "events")
    assert settle_output(out) == "full"
    assert sorted(p.name for p in out.iterdir()) == sorted([*saved, "code.py"])


def test_links_and_odd_files_are_refused_wherever_they_are(tmp_path: Path):
    out = put(tmp_path / "submission", "config.json", "model.safetensors")
    (out / "deep").mkdir()
    (out / "deep" / "link").symlink_to("/etc/passwd")
    with pytest.raises(Forfeit, match="left a symbolic link: deep/link"):
        settle_output(out)
    (out / "deep" / "link").unlink()
    os.mkfifo(out / "deep" / "pipe")
    with pytest.raises(Forfeit, match="left a pipe, socket or device: deep/pipe"):
        settle_output(out)


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 100_000, "\xff"])
def test_a_config_that_cannot_be_read_forfeits(tmp_path: Path, text: str):
    out = put(tmp_path / "submission", "config.json", "model.safetensors")
    (out / "config.json").write_text(text, encoding="latin-1")
    with pytest.raises(Forfeit, match=r"config\.json"):
        settle_output(out)


def test_nothing_valid_is_nothing(tmp_path: Path):
    assert settle_output(tmp_path / "absent") is None
    assert settle_output(put(tmp_path / "empty")) is None
    assert settle_output(put(tmp_path / "half", "config.json")) is None


def test_checkpoints_are_in_the_order_of_their_numbers(tmp_path: Path):
    for name in ("checkpoint-10", "checkpoint-9", "checkpoint-x", "checkpoint-100"):
        put(tmp_path / name)
    assert [p.name for p in checkpoints(tmp_path)] == ["checkpoint-9", "checkpoint-10", "checkpoint-100"]
