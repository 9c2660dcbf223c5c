"""`python -m tests.experiments.rehearsal CONFIG`: a GPU tournament's whole path on this machine's CPUs.

The base is a Llama of the real shapes (vocabulary, width, heads, rope) with two layers and random weights, the rows
are a few of ../shared's, and each competitor is the config's own in a CPU form: without the kernels that need a GPU,
with small steps and budgets. It learns nothing; it shows that every stage takes models of that vocabulary and width,
and says what they took beside what `plan` estimates. One lineage, for memory's and disk's sake, and two rounds.
"""

import argparse
import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import yaml

from cluster.store import LOCAL
from orchestrator.config.loading import load_config
from orchestrator.planning.known_shapes import KNOWN
from orchestrator.planning.plan import Plan, make_plan
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import SnapshotReader

ROOT = Path(__file__).parents[2]
LAYERS, CONTEXT, LONGEST_ROW, TOKENS, HELD_OUT = 2, 4096, 48, 256, 50
VOCABULARY = 4_000
"""Words that its tokenizer really has."""
DATA = {"LaMini": "lamini", "FLAN": "flan_cot"}
CHAT = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant: "


def base(folder: Path, texts: list[str]) -> Path:
    """A Llama of Llama 3.2 3B's shapes but for its layers, with a byte-level tokenizer, stored in bfloat16."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    if (folder / "config.json").exists():
        return folder
    shape = KNOWN["meta-llama/Llama-3.2-3B"]
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    special = ["<|begin_of_text|>", "<|end_of_text|>"]
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY,
            special_tokens=special,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, bos_token=special[0], eos_token=special[1])
    tokenizer.chat_template = CHAT
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=LAYERS,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.key_value_heads,
        head_dim=shape.hidden // shape.heads,
        max_position_embeddings=CONTEXT,
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=shape.tied,
        bos_token_id=0,
        eos_token_id=1,
    )
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def on_a_cpu(recipe: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """A competitor in a CPU form, and what of it is left out or changed."""
    changed, left = dict(recipe), []
    for key in ("liger", "attention"):
        if key in changed:
            left.append(f"{key}: {changed.pop(key)}")
    if "8bit" in changed.get("optimizer", ""):
        left.append(f"optimizer: {changed.pop('optimizer')}")
    if (changed.get("adapter") or {}).get("method") == "qlora":
        left.append("adapter.method: qlora")
        changed["adapter"] = changed["adapter"] | {"method": "lora"}
    workers = (recipe.get("resources") or {}).get("workers", 1)
    changed |= {"batch_size": 1, "gradient_accumulation": 2, "resources": {"workers": workers, "cpus": 2 / workers}}
    return changed, left


def rehearsed(config: Path, folder: Path) -> Path:
    """The config as it can be run here, written into `folder`."""
    raw = yaml.safe_load(config.read_text(encoding="utf-8"))
    data = next(place for word, place in DATA.items() if word.lower() in raw["data"]["source"].lower())
    source = ROOT.parent / "shared/data" / data / "train.jsonl"
    with source.open(encoding="utf-8") as lines:
        rows = [json.loads(line) for line, _ in zip(lines, range(1500), strict=False)]
    model = base(folder.parent / "base", [f"{row['instruction']} {row['output']}" for row in rows])
    rows_file = folder / "rows.jsonl"
    LOCAL.write_text(rows_file, "".join(json.dumps(row) + "\n" for row in rows))
    raw["data"] = {
        "source": str(rows_file),
        "prompt": "{instruction}\n",
        "completion": "{output}",
        "max_tokens": LONGEST_ROW,
        "validation": 2 * HELD_OUT,
        "test": HELD_OUT,
    }
    raw["lineages"] = [raw["lineages"][0] | {"base": str(model)}]
    raw["references"] = [one | ({"model": str(model)} if "model" in one else {}) for one in raw.get("references", [])]
    raw["competitors"] = [on_a_cpu(one)[0] for one in raw["competitors"]]
    raw |= {"name": f"{raw['name']}-rehearsal", "rounds": 2, "budget": {"tokens": TOKENS}, "cluster": {}}
    raw["evaluation"] = {"resources": {"cpus": 2}, "batch_tokens": 2048, "samples": 1, "sample_tokens": 8}
    written = folder / "tournament.yaml"
    LOCAL.write_text(written, yaml.safe_dump(raw, sort_keys=False))
    return written


class Watch:
    """The most memory that a training process took, and the most that a folder held."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.one_process, self.disk = folder, 0, 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> "Watch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        import psutil

        while not self._over.wait(1.0):
            for one in psutil.process_iter():  # Ray's are no children of ours
                try:
                    if one.name().startswith("ray::compete"):
                        self.one_process = max(self.one_process, one.memory_info().rss)
                except psutil.Error:
                    continue
            self.disk = max(self.disk, size_of_folder(self.folder))


def size_of_folder(folder: Path) -> int:
    """Bytes, what is linked several times counted once."""
    seen = {}
    for root, _, names in os.walk(folder):
        for name in names:
            try:
                state = os.stat(os.path.join(root, name))
            except FileNotFoundError:  # it was there a moment ago
                continue
            seen[state.st_ino] = state.st_blocks * 512
    return sum(seen.values())


def said(config: Path, here: Plan, watch: Watch, run: Path) -> str:
    """What became of every entry, and of memory and disk beside the estimates."""
    lines = ["| round | competitor | status | tokens | seconds | left out on a CPU |", "|---|---|---|--:|--:|---|"]
    raw = {one["name"]: one for one in yaml.safe_load(config.read_text(encoding="utf-8"))["competitors"]}
    snapshot = SnapshotReader(RunDirectory(run)).read()
    for one in snapshot.lineages[0].rounds:
        for entry in one.entries:
            done, left = entry.submission, ", ".join(on_a_cpu(raw[entry.name])[1])
            assert done is not None
            status = entry.state if entry.state == "scored" else f"{entry.state}: {entry.reason}"
            took = f"{done.train_tokens:,} | {done.train_seconds:.0f}"
            lines.append(f"| {one.number} | {entry.name} | {status} | {took} | {left} |")
    most = max(entry.memory_gb or 0.0 for entry in here.entries)
    assert here.disk is not None
    disk = size_of_folder(run)
    lines += [
        "",
        f"Memory of the largest training process: {watch.one_process / 2**30:.1f} GB; `plan` says at most {most:.1f}.",
        f"Disk: {disk / 2**30:.1f} GB kept, {watch.disk / 2**30:.1f} at most; `plan` says at most"
        f" {here.disk.kept:.1f} kept and {here.disk.kept + here.disk.round:.1f} while a round runs.",
    ]
    return "\n".join(lines)


def main() -> None:
    """Rehearse a config, and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("config", type=Path)
    config = parser.parse_args().config
    folder = ROOT / "runs" / "rehearsal" / config.stem
    file, run = rehearsed(config, folder), folder / "run"
    plan = make_plan(load_config(file), file, None)
    with Watch(run) as watch:
        done = subprocess.run(
            [sys.executable, "-m", "orchestrator", "run", str(file), "--run-dir", str(run)], check=False
        )
    if done.returncode:
        sys.exit(done.returncode)
    told = said(config, plan, watch, run)
    LOCAL.write_text(folder / "rehearsal.md", told + "\n")
    print(told)


if __name__ == "__main__":
    main()
