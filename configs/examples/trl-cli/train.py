"""Another trainer's command line as a competitor: `trl sft`, told from brief.json what to train on and how long.

The budget of tokens is kept by choosing the rows: as many as hold it, each trained on once.
"""

import ast
import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pyarrow.parquet as pq
import yaml
from numpy.random import default_rng
from transformers import AutoTokenizer

brief = json.loads(Path(os.environ["BRIEF"]).read_text())
out, budget = Path(brief["output_dir"]), brief["budget"]
recipe = yaml.safe_load(Path("recipe.yaml").read_text())


def report(event: str, **values: object) -> None:
    with open(os.environ["BRIEF_PROGRESS_FILE"], "a") as stream:
        stream.write(json.dumps({"event": event, **values}) + "\n")


def choose_rows(path: Path) -> None:
    """Write the rows to train on to `path`: in random order, until the budget is spent or there are no more."""
    tokenizer, table = AutoTokenizer.from_pretrained(brief["seed_model"]), pq.read_table(brief["train_data"])
    chosen, tokens, most = [], 0, (budget["steps"] or table.num_rows) * recipe["per_device_train_batch_size"]
    for index in default_rng(brief["random_seed"]).permutation(table.num_rows).tolist():
        texts = [table[column][index].as_py() for column in ("prompt", "completion")]
        tokens += min(sum(len(ids) for ids in tokenizer(texts)["input_ids"]) + 2, brief["max_tokens"])
        if len(chosen) == most or (budget["tokens"] and tokens > budget["tokens"]):
            break
        chosen.append(index)
    pq.write_table(table.take(chosen).select(["prompt", "completion"]), path)


rows, config = Path(os.environ["TMPDIR"], "rows.parquet"), Path(os.environ["TMPDIR"], "config.yaml")
choose_rows(rows)
ours = {
    "model_name_or_path": brief["seed_model"],
    "datasets": [{"path": "parquet", "data_files": str(rows)}],
    "output_dir": str(out),
    "max_length": brief["max_tokens"],
    "num_train_epochs": 1,
    "seed": brief["random_seed"],
    "use_cpu": brief["resources"]["gpus"] == 0,
}
config.write_text(yaml.safe_dump(recipe | ours))
trainer = subprocess.Popen(["trl", "sft", "--config", config], stdout=subprocess.PIPE, text=True)
began = None
for line in trainer.stdout:
    print(line, end="")
    if not line.startswith("{'loss'"):
        continue
    began = began or time.monotonic()  # the first report starts the clock: TRL's start-up is not charged
    logged = {name: float(value) for name, value in ast.literal_eval(line).items()}
    step = round(logged["epoch"] * pq.read_metadata(rows).num_rows / recipe["per_device_train_batch_size"])
    report("step", step=step, tokens=logged["num_tokens"], loss=logged["loss"], learning_rate=logged["learning_rate"])
    if budget["seconds"] and time.monotonic() - began > budget["seconds"]:
        trainer.terminate()  # the newest whole checkpoint is the submission
        for folder in out.glob("checkpoint-*"):
            if not (folder / "trainer_state.json").exists():
                shutil.rmtree(folder)
        raise SystemExit(0)
raise SystemExit(trainer.wait())
