"""Competitors that fail in every way the contract knows, as functions for kind `python`."""

import json
import os
import shutil
import signal
import time
import zlib

from cluster.errors import Forfeit
from competitors.contract import Brief, Report


def _hand_in(brief: Brief, folder: str = "") -> None:
    """The seed but for a hair, another one for everybody: as good as the seed, and no copy of anything."""
    import torch
    from safetensors.torch import load_file, save_file

    place = brief.output_dir / folder
    shutil.copytree(brief.seed_model, place, dirs_exist_ok=True)
    weights = load_file(place / "model.safetensors")
    norm = weights["model.norm.weight"]
    index = zlib.crc32(brief.competitor.encode()) % len(norm)
    norm[index] = torch.nextafter(norm[index], torch.tensor(2.0))
    (place / "model.safetensors").unlink()  # which may be a link to the seed's own
    save_file(weights, place / "model.safetensors", metadata={"format": "pt"})


def raises(brief: Brief, report: Report) -> None:
    """A bug in the user's code."""
    raise RuntimeError("a bug in my recipe\nwith a second line")


def runs_out_of_memory(brief: Brief, report: Report) -> None:
    """More than there is."""
    raise MemoryError


def is_killed(brief: Brief, report: Report) -> None:
    """As the kernel's out-of-memory killer does it."""
    os.write(2, b"last words of its native code\n")
    os.kill(os.getpid(), signal.SIGKILL)


def is_killed_once(brief: Brief, report: Report) -> None:
    """The second try goes well."""
    if brief.attempt == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    _hand_in(brief)


def hangs(brief: Brief, report: Report) -> None:
    """Never comes back."""
    while True:
        time.sleep(0.05)


def hangs_with_a_checkpoint(brief: Brief, report: Report) -> None:
    """Never comes back, but has saved something valid."""
    _hand_in(brief, "checkpoint-5")
    report({"event": "step", "step": 5, "tokens": 50, "loss": 1.0, "seconds": 0.1})
    while True:
        time.sleep(0.05)


def writes_nothing(brief: Brief, report: Report) -> None:
    """Says it is done, and is not."""


def writes_half(brief: Brief, report: Report) -> None:
    """A config without weights."""
    shutil.copy(brief.seed_model / "config.json", brief.output_dir)


def writes_nan(brief: Brief, report: Report) -> None:
    """A model that diverged."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(brief.seed_model, brief.output_dir, dirs_exist_ok=True)
    weights = load_file(brief.output_dir / "model.safetensors")
    broken = {name: torch.full_like(tensor, float("nan")) for name, tensor in weights.items()}
    save_file(broken, brief.output_dir / "model.safetensors", metadata={"format": "pt"})


def weights_of_1e30(brief: Brief, report: Report) -> None:
    """Finite values, and a loss that is not: the head, which is the embedding too, overflows."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(brief.seed_model, brief.output_dir, dirs_exist_ok=True)
    weights = load_file(brief.output_dir / "model.safetensors")
    weights["model.norm.weight"] *= 1e30
    weights["model.embed_tokens.weight"] *= 1e15
    save_file(weights, brief.output_dir / "model.safetensors", metadata={"format": "pt"})


def names_an_absent_shard(brief: Brief, report: Report) -> None:
    """The last shard was never written."""
    shutil.copytree(brief.seed_model, brief.output_dir, dirs_exist_ok=True)
    (brief.output_dir / "model.safetensors").rename(brief.output_dir / "model-00001-of-00002.safetensors")
    index = {"weight_map": {"lm_head.weight": "model-00002-of-00002.safetensors"}}
    (brief.output_dir / "model.safetensors.index.json").write_text(json.dumps(index))


def speaks_of_a_full_disk(brief: Brief, report: Report) -> None:
    """In a place that a library's error repeats."""
    shutil.copytree(brief.seed_model, brief.output_dir, dirs_exist_ok=True)
    config = json.loads((brief.output_dir / "config.json").read_text())
    config["model_type"] = "No space left on device"
    (brief.output_dir / "config.json").write_text(json.dumps(config))


def reports_nonsense(brief: Brief, report: Report) -> None:
    """Fields of the wrong type, a line that never ends, and words for a terminal."""
    _hand_in(brief)
    report({"event": "step", "tokens": None, "loss": float("nan")})
    report({"event": "step", "tokens": "many", "[/bold]</script>": 1})
    with brief.progress_file.open("a") as stream:
        stream.write("x" * 3_000_000)


def returns_the_seed(brief: Brief, report: Report) -> None:
    """As good as the seed, all but exactly; says what its process knows."""
    print(dict(os.environ))
    _hand_in(brief)


def hands_in_good_with_noise(brief: Brief, report: Report) -> None:
    """What the entry `good` of this round has handed in, with a thousandth of noise and one tensor quite changed."""
    import torch
    from safetensors.torch import load_file, save_file

    shutil.copytree(brief.output_dir.parent.parent / "good" / "submission", brief.output_dir, dirs_exist_ok=True)
    weights = load_file(brief.output_dir / "model.safetensors")
    noisy = {name: weight + 1e-3 * weight.std() * torch.randn_like(weight) for name, weight in weights.items()}
    noisy["model.layers.1.mlp.up_proj.weight"] *= 1.05
    save_file(noisy, brief.output_dir / "model.safetensors", metadata={"format": "pt"})


def hands_in_an_adapter(brief: Brief, report: Report) -> None:
    """LoRA matrices that are the same for everybody."""
    from tests.unit.evaluation.submissions.making import tiny_adapter

    tiny_adapter(brief.output_dir, brief.seed_model)


def hands_in_that_adapter_merged(brief: Brief, report: Report) -> None:
    """The same model, as a full one in 32 bits."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    hands_in_an_adapter(brief, report)
    seed = AutoModelForCausalLM.from_pretrained(brief.seed_model, dtype=torch.float32)
    model = PeftModel.from_pretrained(seed, brief.output_dir)
    shutil.rmtree(brief.output_dir)
    model.merge_and_unload().save_pretrained(brief.output_dir)


def races_well(brief: Brief, report: Report) -> None:
    """Saves a checkpoint at the rung, goes on until that is scored, and hands the same model in."""
    _checkpoint(brief, report, noise=0.0)
    time.sleep(6)
    _hand_in(brief)


def races_badly(brief: Brief, report: Report) -> None:
    """Gets to the rung later and with a worse model, and ends when it is told to."""
    time.sleep(5)
    _checkpoint(brief, report, noise=0.5)
    for _ in range(400):
        if brief.stop_file.exists():
            raise Forfeit(brief.stop_file.read_text())
        time.sleep(0.1)


def races_badly_and_deaf(brief: Brief, report: Report) -> None:
    """The same, but it does not listen."""
    time.sleep(5)
    _checkpoint(brief, report, noise=0.5)
    time.sleep(40)


def _checkpoint(brief: Brief, report: Report, noise: float) -> None:
    import torch
    from safetensors.torch import load_file, save_file

    report({"event": "started"})
    folder = brief.output_dir / "checkpoint-1"
    shutil.copytree(brief.seed_model, folder)
    weights = load_file(folder / "model.safetensors")
    noisy = {name: tensor + noise * torch.randn_like(tensor) for name, tensor in weights.items()}
    save_file(noisy, folder / "model.safetensors", metadata={"format": "pt"})
    report({"event": "checkpoint", "step": 1, "fraction": brief.race_at[0], "folder": folder.name})
