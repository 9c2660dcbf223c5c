"""An independent check of a finished or running tournament: `python -m evaluation.recompute RUN_DIR`.

It shares no code with what it checks: transformers and torch run the models, one row at a time without padding, and
everything else is written out here. It recomputes

- that the held-out rows are those of the manifest, and each row's name is the hash of its content;
- every champion's loss on them, from the folder that was promoted (or exported: `--exported`), row by row;
- the arithmetic of every verdict from what is on record of each row: losses, differences to the champion, who won (the
  lowest loss, or the best by `selection.metric`), what seeds the next round, how titles and seeds pass on;
- every proof, as docs/trust.md says: the gain, its lower bound, any doubt, the chance to err, the guardrails, and
  whether the title follows.

It does not check how a whole budget's allocation picks what goes on. It prints a table, and exits 1 where something
differs by more than 1e-4 nats. What a GPU scored in bfloat16 agrees so closely only there, and only in the mean.
"""

import argparse
import hashlib
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from math import cbrt, inf, log, sqrt
from pathlib import Path
from statistics import NormalDist
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import yaml

Json = dict[str, Any]
TOLERANCE = 1e-4
"""In nats per token."""
SPLITS = ("validation", "proof", "test")


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
    """What is on record of one model on the rows of one split: the loss of each, or another cost that chooses."""

    ids: list[str]
    nats: Any
    tokens: Any
    group: Any

    @property
    def loss(self) -> float:
        """Nats per token, or the mean of the other cost."""
        return float(self.nats.sum() / self.tokens.sum())


COSTS = {
    "loss": ("nats", 1.0, "tokens"),
    "bits_per_byte": ("nats", 1 / log(2), "bytes"),
    "token_accuracy": ("hits", -1.0, "tokens"),
    "exact_match": ("matches", -1.0, ""),
    "rouge_l": ("overlap", -1.0, ""),
}
"""What each metric sums up, such that lower is better, and by what it is divided: or by the rows that have one."""


def rows_of(scores: Path, split: str, metric: str = "loss") -> Rows:
    """The rows of a split in the folder `scores`, or a task's documents, as the metric sees them."""
    file = scores / "losses.parquet" if metric in COSTS else scores / "harness" / f"{metric}.parquet"
    table = pq.read_table(file, filters=[("split", "=", split)])
    column = {
        name: table[name].to_numpy().astype(float) for name in table.column_names if name not in ("split", "row_id")
    }
    summed, factor, counted = COSTS.get(metric, ("score", -1.0, "tokens"))
    values = column[summed] * factor
    counts = np.isfinite(values).astype(float) if not counted else np.where(column["tokens"] > 0, column[counted], 0.0)
    return Rows(table["row_id"].to_pylist(), np.where(counts > 0, values, 0.0), counts, column["group"])


def read(file: Path) -> Any:
    """A record."""
    return json.loads(file.read_text(encoding="utf-8"))


def check_data(run: Path) -> Iterator[Check]:
    """That the held-out rows are the ones that were drawn."""
    recorded = read(run / "data" / "manifest.json")["sha256"]
    for split in (split for split in recorded if split not in ("train", "slice")):
        file = run / "data" / "held_out" / f"{split}.parquet"
        yield Check(f"{split} rows, SHA-256", recorded[split][:12], hashlib.sha256(file.read_bytes()).hexdigest()[:12])
        columns = pq.read_table(file, columns=["row_id", "prompt", "completion"]).to_pydict()
        content = zip(columns["prompt"], columns["completion"], strict=True)
        hashes = [hashlib.sha256(f"{prompt}\0{completion}".encode()).hexdigest()[:16] for prompt, completion in content]
        yield Check(
            f"{split} rows, named by their content", len(hashes), sum(map(str.__eq__, hashes, columns["row_id"]))
        )


def check_lineage(lineage: Path, config: Json) -> Iterator[Check]:
    """The arithmetic of all verdicts of a lineage, in their order."""
    seed, champion, spent = "base", "base", 0.0
    yield from check_scorecard(lineage / "round-000", f"{lineage.name}: base")
    for file in sorted(lineage.glob("round-*/verdict.json")):
        verdict, where = read(file), f"{lineage.name} round {int(file.parent.name[-3:])}"
        yield Check(f"{where}: champion before", verdict["champion_before"], champion)
        yield Check(f"{where}: seed before", verdict["seed_before"], seed)
        yield from check_verdict(lineage, verdict, where, config)
        yield from check_proof(lineage, verdict, where, config, spent)
        seed, champion, spent = verdict["seed_next"], verdict["champion"], verdict["spent"]


def check_verdict(lineage: Path, verdict: Json, where: str, config: Json) -> Iterator[Check]:
    """One verdict, from the rows' losses."""
    folder = lineage / f"round-{verdict['round']:03d}"
    scored = [file.parent for file in sorted(folder.glob("*/scorecard.json"))]
    passed = [entry for entry in scored if not read(entry / "inspection.json")["reason"]]
    split = choosing(config, verdict["round"])
    losses = {entry.name: rows_of(entry, split).loss for entry in passed}
    told = {entry["competitor"]: entry for entry in verdict["entries"]}
    yield Check(f"{where}: who was scored", sorted(told), sorted(losses))
    metric = config["selection"]["metric"]
    costs = {entry.name: rows_of(entry, split, metric).loss for entry in passed}
    before = cost_of(lineage, verdict["champion_before"], split, metric)
    for name in sorted({*told} & {*losses}):
        yield from check_scorecard(folder / name, f"{where}: {name}", split)
        yield Check(f"{where}: {name}, loss", told[name]["validation_loss"], losses[name])
        yield Check(f"{where}: {name}, below the champion", told[name]["improvement"], before - costs[name])
    winner = verdict["winner"]
    yield Check(f"{where}: the winner's {metric} is the best", costs.get(winner), min(costs.values(), default=None))
    own = f"{winner}@{verdict['round']}"
    yield Check(f"{where}: champion", verdict["champion"], own if verdict["dethroned"] else verdict["champion_before"])
    yield Check(f"{where}: its loss", verdict["validation_loss"], cost_of(lineage, verdict["champion"], split))
    seeded = cost_of(lineage, verdict["seed_next"], split)
    yield Check(f"{where}: next seed's loss", verdict["seed_validation_loss"], seeded)
    if config["selection"]["seed"] == "champion":
        yield Check(f"{where}: next seed", verdict["seed_next"], verdict["champion"])
    elif not is_allocated(config):
        candidates = [verdict["champion_before"], verdict["seed_before"], *([own] if winner else [])]
        yield Check(f"{where}: next seed is among", verdict["seed_next"] in candidates, True)
        best = min(cost_of(lineage, one, split, metric) for one in candidates)
        yield Check(f"{where}: its {metric} is the best", cost_of(lineage, verdict["seed_next"], split, metric), best)


def check_proof(lineage: Path, verdict: Json, where: str, config: Json, spent: float) -> Iterator[Check]:
    """Whether the winner of a round has the title that it should have. `spent`: of the chance to err, by then."""
    before, own, proof = verdict["champion_before"], f"{verdict['winner']}@{verdict['round']}", verdict["proof"]
    metric, split = config["selection"]["metric"], choosing(config, verdict["round"])
    leads = verdict["winner"] is not None and cost_of(lineage, own, split, metric) < cost_of(
        lineage, before, split, metric
    )
    yield Check(f"{where}: the winner has something to prove", proof is not None, leads)
    takes_title = False
    if proof is not None:
        typical = typical_tail(lineage, verdict["round"], config)
        mean, low, is_doubted = gain(lineage, before, own, proof["level"], split, metric, typical)
        is_kept = [is_guarded(lineage, before, own, rule) for rule in config["selection"]["guardrails"]]
        takes_title = low > config["selection"]["margin_nats"] and not is_doubted and all(is_kept)
        yield Check(f"{where}: any doubt of it", bool(proof["doubt"]), is_doubted)
        yield Check(f"{where}: guardrails that are kept", [one["kept"] for one in proof["guardrails"]], is_kept)
        yield Check(f"{where}: its chance to err", proof["level"], level(config, verdict["round"], spent))
        yield Check(f"{where}: gain on the rows that prove", proof["improvement"], mean)
        yield Check(f"{where}: its lower bound", proof["improvement_low"], low)
        spent += 0.0 if takes_title else proof["level"]
    yield Check(f"{where}: the title is due", verdict["dethroned"], takes_title)
    yield Check(f"{where}: spent of the chance to err", verdict["spent"], spent)


def by_group(lineage: Path, over: str, of: str, split: str, metric: str) -> tuple[float, Any, float]:
    """A model's mean gain on a split, each group's deviation from it, and how many tokens there are."""
    theirs, ours = (rows_of(scores_of(lineage, model), split, metric) for model in (over, of))
    group = np.unique(theirs.group, return_inverse=True)[1]
    gained, tokens = np.bincount(group, theirs.nats - ours.nats), np.bincount(group, theirs.tokens)
    mean = float(gained.sum() / tokens.sum())
    return mean, (gained - mean * tokens)[tokens > 0], float(tokens.sum())


def typical_tail(lineage: Path, number: int, config: Json) -> tuple[float, float] | None:
    """Medians over a round's entries, on rows that a winner was picked on: how skewed their gains are, and by how many
    nats the worst group falls behind the mean gain.

    Of fewer than eight entries with those of the rounds before, over the champions that they met; None for two or less.
    """
    tails: list[tuple[float, float]] = []
    for earlier in range(number, 0, -1):
        verdict = read(lineage / f"round-{earlier:03d}" / "verdict.json")
        split, metric = choosing(config, earlier), config["selection"]["metric"]
        for one in verdict["entries"][: None if earlier == number else max(8 - len(tails), 0)]:
            model = f"{one['competitor']}@{earlier}"
            off = by_group(lineage, verdict["champion_before"], model, split, metric)[1]
            squares = float((off**2).mean())
            skew = float((off**3).mean() / squares**1.5) if squares else 0.0
            tails.append((skew, max(0.0, -float(off.min()))))
    if len(tails) < 3:
        return None
    skews, worst = zip(*tails, strict=True)
    return float(np.median(skews)), float(np.median(worst))


def is_guarded(lineage: Path, before: str, after: str, rule: Json) -> bool:
    """Whether a figure that is looked after has become worse by no more than it may, on the rows that prove."""
    worse = [rows_of(scores_of(lineage, model), "proof", rule["metric"]).loss for model in (after, before)]
    return bool(worse[0] - worse[1] <= rule["max_drop"] + 1e-9)


def gain(
    lineage: Path,
    over: str,
    of: str,
    chance: float,
    split: str,
    metric: str,
    typical: tuple[float, float] | None,
) -> tuple[float, float, bool]:
    """A model's mean gain on the rows that prove, its bound by Student (in Fisher's expansion) and Hall, any doubt.

    It is at least as skewed as is `typical` of the entries that it was picked from. Where that is below -2.25, or one
    group that loses is over a fifth of the spread, half the chance is for rows that were not met: at most -ln(chance)
    of them, as bad as the typical worst, or as that group.
    """
    mean, off, tokens = by_group(lineage, over, of, "proof", metric)
    others = by_group(lineage, over, of, split, metric)[1]
    both, n = np.concatenate([off, others]), len(off)
    squares, losing = float((both**2).sum()), float(-min(both.min(), 0.0))
    tail, worst = typical if typical is not None else (inf, 0.0)
    unseen = max(worst * (tail <= -2.25), losing * (losing**2 > 0.2 * squares))
    chance = chance / 2 if unseen else chance
    z = NormalDist().inv_cdf(1 - chance)
    skew = float((both**3).mean() / (squares / len(both)) ** 1.5) if squares else 0.0
    student = z + (z**3 + z) / (4 * (n - 1)) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * (n - 1) ** 2)
    student += (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * (n - 1) ** 3)
    skew, t = min(skew, tail), student
    hall = sqrt(n) * 3 / skew * (cbrt(1 + skew * (t / sqrt(n) - skew / (6 * n))) - 1) if abs(skew) > 1e-6 else t
    low = float(mean - max(student, hall) * sqrt((off**2).sum() * n / (n - 1)) / tokens)
    return mean, low + log(chance) * unseen / tokens, n < 50


def level(config: Json, number: int, spent: float) -> float:
    """The chance to err that is a round's: its part of what is left, but for what is held back for extensions."""
    extended = [[c["extend"] or 0 for c in config["changes"] if c["from_round"] <= n] for n in range(1, number + 1)]
    left = (1 - config["selection"]["confidence"]) * (1 - 0.2 * 0.5 ** (len(set(map(sum, extended))) - 1)) - spent
    return float(left / (config["rounds"] + sum(extended[-1]) - number + 1))


def check_scorecard(scores: Path, where: str, chose: str = "validation") -> Iterator[Check]:
    """The losses of a scorecard, from the rows beside it; `chose` is the split that did when it was entered."""
    card = read(scores / "scorecard.json")
    for name, split in zip(SPLITS, (chose, *SPLITS[1:]), strict=True):
        if card.get(name):
            yield Check(f"{where}, scorecard's {name} loss", card[name]["loss"], rows_of(scores, split).loss)


def is_allocated(config: Json) -> bool:
    """Whether a whole budget is shared out, which has rules of its own for what goes on."""
    budget = config["budget"]
    whole = budget.get("total_tokens") is not None or budget.get("total_gpu_hours") is not None
    return whole and config["allocation"]["kind"] == "race"


def scores_of(lineage: Path, model: str) -> Path:
    """Where the losses of `base` or `competitor@round` lie."""
    name, _, number = model.rpartition("@")
    return lineage / f"round-{int(number):03d}" / name if name else lineage / "round-000"


def choosing(config: Json, number: int) -> str:
    """The split whose rows choose in a round: each has its own where they rotate, those that were added the first's."""
    validation = config["data"]["validation"]
    rotates = isinstance(validation, dict) and validation["rotate"]
    turn = (number - 1) % config["rounds"] + 1 if rotates else 1
    return f"validation-{turn}" if turn > 1 else "validation"


def cost_of(lineage: Path, model: str, split: str, metric: str = "loss") -> float:
    """Its loss on the rows of a split, or what else chooses."""
    return rows_of(scores_of(lineage, model), split, metric).loss


def check_champion(run: Path, lineage: Path, model: str, folder: Path, max_tokens: int) -> Iterator[Check]:
    """What the model in `folder` makes of the held-out rows, against what is on record of `model`."""
    scores = scores_of(lineage, model)
    dtype = read(scores / "scorecard.json")["dtype"]
    for split in sorted(set(pq.read_table(scores / "losses.parquet", columns=["split"])["split"].to_pylist())):
        recorded = rows_of(scores, split)
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
                losses = torch.nn.functional.cross_entropy(logits, targets, reduction="none")
            nats[number] = losses.double().sum().item()
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
        verdicts = [(read(file), file.parent) for file in sorted(folder.glob("round-*/verdict.json"))]
        crowned = [(verdict["champion"], where / "champion") for verdict, where in verdicts if verdict["dethroned"]]
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
    parser = argparse.ArgumentParser("python -m evaluation.recompute", description="Recompute a tournament's record.")
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
