"""An independent check of a finished or running tournament: `python -m evaluation.recompute RUN_DIR`.

It shares no code with what it checks: transformers and torch run the models, one row at a time without padding, and
everything else is written out here. It recomputes

- that the held-out rows are those of the manifest, and each row's name is the hash of its content;
- every champion's loss on them, from the folder that was promoted (or exported: `--exported`), as the README says that
  a row is scored;
- the arithmetic of every verdict from the rows' losses in losses.parquet: losses, differences to the champion, who won
  (the lowest loss), what seeds the next round, and that titles and seeds pass from round to round.

It does not check the confidence bounds that a title rests on, nor how a whole budget's allocation picks what goes on.
Prints a table; exits 1 where something differs by more than 1e-4 nats. What was scored in bfloat16 on a GPU agrees so
closely only on a GPU, and there rows of their own are not compared, but their mean.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

TOLERANCE = 1e-4
"""In nats per token."""
SPLITS = ("validation", "test")


@dataclass(frozen=True)
class Check:
    """One thing that is on record, and what it comes to here."""

    what: str
    recorded: Any
    found: Any

    @property
    def agrees(self) -> bool:
        """Whether the two are the same, numbers to within TOLERANCE."""
        if isinstance(self.recorded, float) and isinstance(self.found, float):
            return abs(self.recorded - self.found) <= TOLERANCE  # not so where one is no number
        return bool(self.recorded == self.found)


@dataclass(frozen=True)
class Rows:
    """What losses.parquet says of one model on one split, in the order of the held-out rows."""

    ids: list[str]
    nats: Any
    tokens: Any

    @property
    def loss(self) -> float:
        """Nats per token."""
        return float(self.nats.sum() / self.tokens.sum())


def rows_of(scores: Path, split: str) -> Rows:
    """The rows of a split in the losses.parquet of the folder `scores`."""
    table = pq.read_table(scores / "losses.parquet", filters=[("split", "=", split)])
    return Rows(table["row_id"].to_pylist(), *(table[name].to_numpy().astype(float) for name in ("nats", "tokens")))


def read(file: Path) -> Any:
    """A record."""
    return json.loads(file.read_text(encoding="utf-8"))


def check_data(run: Path) -> Iterator[Check]:
    """That the held-out rows are the ones that were drawn."""
    recorded = read(run / "data" / "manifest.json")["sha256"]
    for split in SPLITS:
        file = run / "data" / "held_out" / f"{split}.parquet"
        yield Check(f"{split} rows, SHA-256", recorded[split][:12], hashlib.sha256(file.read_bytes()).hexdigest()[:12])
        columns = pq.read_table(file, columns=["row_id", "prompt", "completion"]).to_pydict()
        content = zip(columns["prompt"], columns["completion"], strict=True)
        hashes = [hashlib.sha256(f"{prompt}\0{completion}".encode()).hexdigest()[:16] for prompt, completion in content]
        yield Check(
            f"{split} rows, named by their content", len(hashes), sum(map(str.__eq__, hashes, columns["row_id"]))
        )


def check_lineage(lineage: Path, config: dict[str, Any]) -> Iterator[Check]:
    """The arithmetic of all verdicts of a lineage, in their order."""
    seed = champion = "base"
    yield from check_scorecard(lineage / "round-000", f"{lineage.name}: base")
    for file in sorted(lineage.glob("round-*/verdict.json")):
        verdict, where = read(file), f"{lineage.name} round {int(file.parent.name[-3:])}"
        yield Check(f"{where}: champion before", verdict["champion_before"], champion)
        yield Check(f"{where}: seed before", verdict["seed_before"], seed)
        yield from check_verdict(lineage, verdict, where, config)
        seed, champion = verdict["seed_next"], verdict["champion"]


def check_verdict(lineage: Path, verdict: dict[str, Any], where: str, config: dict[str, Any]) -> Iterator[Check]:
    """One verdict, from the rows' losses."""
    folder = lineage / f"round-{verdict['round']:03d}"
    passed = [file.parent for file in sorted(folder.glob("*/scorecard.json")) if is_in(file.parent)]
    losses = {entry.name: rows_of(entry, "validation").loss for entry in passed}
    told = {entry["competitor"]: entry for entry in verdict["entries"]}
    yield Check(f"{where}: who was scored", sorted(told), sorted(losses))
    before = loss_of(lineage, verdict["champion_before"])
    for name in sorted({*told} & {*losses}):
        yield from check_scorecard(folder / name, f"{where}: {name}")
        yield Check(f"{where}: {name}, loss", told[name]["validation_loss"], losses[name])
        yield Check(f"{where}: {name}, below the champion", told[name]["improvement"], before - losses[name])
    lowest = min(losses.values(), default=None)
    winner = verdict["winner"]
    yield Check(f"{where}: the winner's loss is the lowest", losses.get(winner), lowest)
    own = f"{winner}@{verdict['round']}"
    yield Check(f"{where}: champion", verdict["champion"], own if verdict["dethroned"] else verdict["champion_before"])
    yield Check(f"{where}: its loss", verdict["validation_loss"], loss_of(lineage, verdict["champion"]))
    seed = loss_of(lineage, verdict["seed_next"])
    yield Check(f"{where}: next seed's loss", verdict["seed_validation_loss"], seed)
    if config["selection"]["seed"] == "champion":
        yield Check(f"{where}: next seed", verdict["seed_next"], verdict["champion"])
    elif not is_allocated(config):
        candidates = [verdict["champion_before"], verdict["seed_before"], *([own] if winner else [])]
        yield Check(f"{where}: next seed is among", verdict["seed_next"] in candidates, True)
        yield Check(f"{where}: its loss is the lowest", seed, min(loss_of(lineage, one) for one in candidates))


def check_scorecard(scores: Path, where: str) -> Iterator[Check]:
    """The losses of a scorecard, from the rows beside it."""
    card = read(scores / "scorecard.json")
    for split in SPLITS:
        if card.get(split):
            yield Check(f"{where}, scorecard's {split} loss", card[split]["loss"], rows_of(scores, split).loss)


def is_in(entry: Path) -> bool:
    """Whether a scored entry was not rejected, then or later."""
    inspection = entry / "inspection.json"
    return inspection.is_file() and not read(inspection)["reason"]


def is_allocated(config: dict[str, Any]) -> bool:
    """Whether a whole budget is shared out, which has rules of its own for what goes on."""
    budget = config["budget"]
    whole = budget.get("total_tokens") is not None or budget.get("total_gpu_hours") is not None
    return whole and config["allocation"]["kind"] == "race"


def scores_of(lineage: Path, model: str) -> Path:
    """Where the losses of `base` or `competitor@round` lie."""
    name, _, number = model.rpartition("@")
    return lineage / f"round-{int(number):03d}" / name if name else lineage / "round-000"


def loss_of(lineage: Path, model: str) -> float:
    """Its loss on the rows that choose."""
    return rows_of(scores_of(lineage, model), "validation").loss


def champions(lineage: Path) -> Iterator[tuple[str, Path]]:
    """Each champion of a lineage but its base, and its folder."""
    for file in sorted(lineage.glob("round-*/verdict.json")):
        verdict = read(file)
        if verdict["dethroned"]:
            yield verdict["champion"], file.parent / "champion"


def check_champion(run: Path, lineage: Path, model: str, folder: Path, max_tokens: int) -> Iterator[Check]:
    """What the model in `folder` makes of the held-out rows, against what is on record of `model`."""
    scores = scores_of(lineage, model)
    dtype = read(scores / "scorecard.json")["dtype"]
    for split in SPLITS:
        recorded = rows_of(scores, split)
        if not recorded.ids:
            continue
        ids, nats, tokens = score(folder, run / "data" / "held_out" / f"{split}.parquet", max_tokens, dtype)
        where = f"{lineage.name}: {model} from {folder.name}/, {split}"
        yield Check(f"{where} rows", recorded.ids == ids, True)
        yield Check(f"{where} tokens", int(recorded.tokens.sum()), int(tokens.sum()))
        yield Check(f"{where} loss", recorded.loss, float(nats.sum() / tokens.sum()))
        if dtype == "float32" and recorded.ids == ids:
            worst = np.max(np.abs(recorded.nats - nats) / np.maximum(tokens, 1))
            yield Check(f"{where}, the row that differs most", 0.0, float(worst))


def score(folder: Path, held_out: Path, max_tokens: int, dtype: str) -> tuple[list[str], Any, Any]:
    """Names of the rows, and for each the summed -log p of its completion's tokens, and how many these are."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).to(device).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = pq.read_table(held_out, columns=["row_id", "prompt", "completion"]).to_pylist()
    nats, tokens = np.zeros(len(rows)), np.zeros(len(rows))
    for number, row in enumerate(rows):
        ids, start = encode(tokenizer, row["prompt"], row["completion"], max_tokens)
        if len(ids) > start:
            with torch.inference_mode():
                logits = model(torch.tensor([ids], device=device)).logits[0, start - 1 : -1].float()
                targets = torch.tensor(ids[start:], device=device)
                nats[number] = (
                    torch.nn.functional.cross_entropy(logits, targets, reduction="none").double().sum().item()
                )
            tokens[number] = len(ids) - start
    return [row["row_id"] for row in rows], nats, tokens


def encode(tokenizer: Any, prompt: str, completion: str, max_tokens: int) -> tuple[list[int], int]:
    """The row's token ids, and where those begin that are counted."""
    first = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]
    last = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    left, right = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, completion))
    return [*first, *left, *right, *last][:max_tokens], max(len(first) + len(left), 1)


def checks(run: Path, exported: Path | None = None, lineage: str | None = None) -> Iterator[Check]:
    """Everything, one after the other."""
    config = yaml.safe_load((run / "tournament.yaml").read_text(encoding="utf-8"))
    yield from check_data(run)
    for folder in sorted((run / "lineages").iterdir()):
        if lineage not in (None, folder.name):
            continue
        yield from check_lineage(folder, config)
        crowned = list(champions(folder))
        for model, where in crowned:
            yield from check_champion(run, folder, model, where, config["data"]["max_tokens"])
        if exported is not None and crowned:
            yield from check_champion(run, folder, crowned[-1][0], exported, config["data"]["max_tokens"])


def line(check: Check) -> str:
    """A line of the table."""
    shown = [f"{value:.6f}" if isinstance(value, float) else str(value) for value in (check.recorded, check.found)]
    return f"{'ok    ' if check.agrees else 'DIFFERS'} {check.what:72} {shown[0]:>24} {shown[1]:>24}"


def main(arguments: list[str] | None = None) -> int:
    """Print the table; 0 where all agrees, 1 where not."""
    parser = argparse.ArgumentParser(
        prog="python -m evaluation.recompute", description="Recompute a tournament's record."
    )
    parser.add_argument("run", type=Path, metavar="RUN_DIR")
    parser.add_argument("--exported", type=Path, help="a folder that `tournament export` wrote, scored too")
    parser.add_argument("--lineage", help="only this one")
    given = parser.parse_args(arguments)
    if not (given.run / "tournament.yaml").is_file():
        parser.error(f"{given.run} is no run directory")
    done = []
    print(f"{'':7} {'':72} {'on record':>24} {'recomputed':>24}")
    try:
        for check in checks(given.run, given.exported, given.lineage):
            print(line(check), flush=True)
            done.append(check.agrees)
    except (OSError, KeyError, ValueError) as error:
        print(f"DIFFERS a record is gone or is none: {type(error).__name__}: {error}")
        return 1
    print(f"{sum(done)} of {len(done)} agree (to {TOLERANCE:g} nats per token)")
    return 0 if all(done) else 1


if __name__ == "__main__":
    sys.exit(main())
