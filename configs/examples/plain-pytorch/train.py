"""A competitor as a plain PyTorch loop: no Trainer, and nothing of the tournament but brief.json."""

import itertools
import json
import os
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, AutoTokenizer

brief = json.loads(Path(os.environ["BRIEF"]).read_text())
out, limits = Path(brief["output_dir"]), {name: limit for name, limit in brief["budget"].items() if limit}
learning_rate, rows_per_step = float(os.environ["LEARNING_RATE"]), int(os.environ.get("ROWS_PER_STEP", 16))
checkpoints = 4


def report(event: str, **values: float) -> None:
    with open(os.environ["BRIEF_PROGRESS_FILE"], "a") as stream:
        stream.write(json.dumps({"event": event, **values}) + "\n")


def encode(prompt: str, completion: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and labels of a row as it is scored: [bos] prompt completion [eos], the loss on the completion only."""
    bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    left, right = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion))
    ids = torch.tensor([*bos, *left, *right, tokenizer.eos_token_id])
    labels = ids.clone()
    labels[: len(bos + left)] = -100
    return ids[: brief["max_tokens"]], labels[: brief["max_tokens"]]


def save(step: int) -> None:
    """A checkpoint, whole or not at all, in the seed's dtype. The newest one is the submission."""
    weights = {name: tensor.to(stored) for name, tensor in model.state_dict().items()}
    model.save_pretrained(out / "unfinished", state_dict=weights)
    (out / "unfinished").rename(out / f"checkpoint-{step}")


torch.manual_seed(brief["random_seed"])
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
tokenizer = AutoTokenizer.from_pretrained(brief["seed_model"])
model = AutoModelForCausalLM.from_pretrained(brief["seed_model"])
stored, device = model.dtype, "cuda" if torch.cuda.is_available() else "cpu"
model.float().to(device).train()
optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.95), weight_decay=0.01)
rows = pq.read_table(brief["train_data"], columns=["prompt", "completion"]).to_pylist()
order = itertools.chain.from_iterable(torch.randperm(len(rows)).tolist() for _ in itertools.count())

report("started")
began, tokens, saved = time.monotonic(), 0, 0
for step in itertools.count():
    batch = [encode(**rows[i]) for i in itertools.islice(order, rows_per_step)]
    tokens += sum(len(ids) for ids, _ in batch)
    used = {"tokens": tokens, "steps": step + 1, "seconds": time.monotonic() - began}
    share = max(used[name] / limit for name, limit in limits.items())
    if share > 1:
        if step == 0:  # what it would hand in is its seed
            sys.exit(f"the budget holds no step of {rows_per_step} rows, {tokens} tokens: set ROWS_PER_STEP lower")
        break
    optimizer.param_groups[0]["lr"] = learning_rate * (1 - share)
    # Padding goes on the right, where nothing that counts attends to it.
    ids, labels = (pad_sequence(part, True, -100).to(device) for part in zip(*batch, strict=True))
    loss = model(input_ids=ids.clamp(min=0), labels=labels).loss
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    optimizer.zero_grad()
    report("step", step=step + 1, tokens=tokens, loss=loss.item(), learning_rate=learning_rate * (1 - share))
    if share * (checkpoints + 1) >= saved + 1:
        saved = int(share * (checkpoints + 1))
        save(step)
save(step)
