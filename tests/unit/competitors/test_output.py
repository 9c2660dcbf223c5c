"""What counts as a submission, and what becomes of the rest that a program leaves."""

import json
import os
from pathlib import Path

import pytest

from cluster.errors import Forfeit
from competitors.output import checkpoints, model_form, settle_output


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
