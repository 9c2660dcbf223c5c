"""`tournament evaluate`: any model or adapter on a run's held-out rows, paired against its champions."""

import json
import tempfile
from pathlib import Path
from typing import Literal, cast

from rich.console import Console
from rich.table import Table

from cluster.errors import Forfeit, UserError
from cluster.records import Record
from competitors.contract import model_form
from evaluation.compare import improvements
from evaluation.evaluator import ScoringJob, score_model
from evaluation.results import read_results
from evaluation.scorecard import Scorecard
from orchestrator.config import TournamentConfig
from orchestrator.record.run_directory import RunDirectory
from orchestrator.views.leaderboard import scorecard_of, settled


class Against(Record):
    """The model against one lineage's champion on the validation rows."""

    lineage: str
    champion: str
    champion_validation_loss: float
    champion_bits_per_byte: float
    improvement: float | None
    """Nats per token below the champion; None where the tokenizers differ and only bits per byte compare."""
    improvement_low: float | None


class Outside(Record):
    """What `tournament evaluate --json` prints."""

    model: str
    scorecard: Scorecard
    against: list[Against]


def evaluate_outside(run: RunDirectory, model: Path, base: Path | None, prompt: str) -> Outside:
    """Score the model in `model` as the tournament scores its own, in this process."""
    config = run.config
    if prompt not in ("plain", "chat"):
        raise UserError(f"--prompt {prompt}: give plain or chat")
    form = model_form(model)
    if form is None:
        raise UserError(f"{model}: holds neither a full model nor a PEFT adapter with safetensors weights")
    stands_on = _base_of(model, base) if form == "adapter" else model
    with tempfile.TemporaryDirectory() as scratch:
        job = ScoringJob(
            name=str(model),
            model=stands_on,
            adapter=model if form == "adapter" else None,
            tokenizer=stands_on,
            held_out=run.held_out,
            max_tokens=config.data.max_tokens,
            batch_tokens=config.evaluation.batch_tokens,
            prompt=cast(Literal["plain", "chat"], prompt),
            dtype=config.evaluation.dtype,
            out=Path(scratch),
        )
        try:
            card = score_model(job)
        except Forfeit as reason:
            raise UserError(f"{model}: {reason}") from reason
        against = _against(config, run, Path(scratch))
    return Outside(model=str(model), scorecard=card, against=against)


def _base_of(adapter: Path, base: Path | None) -> Path:
    named = base or Path(json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] or "")
    if model_form(named) != "full":
        raise UserError(f"{adapter}: stands on {named}, which is no model folder here: name it with --base")
    return named


def _against(config: TournamentConfig, run: RunDirectory, scored: Path) -> list[Against]:
    ours = read_results(scored / "losses.parquet", "validation")
    rows = []
    for lineage in config.lineages:
        verdicts = settled(config, run, lineage)
        label = verdicts[-1].champion if verdicts else "base"
        card_file = scorecard_of(run, lineage.name, label)
        card = Scorecard.read_if_there(card_file)
        if card is None:
            continue
        theirs = read_results(card_file.with_name("losses.parquet"), "validation")
        rules = config.selection
        gain = None
        if (ours.tokens == theirs.tokens).all():
            gain = improvements(theirs, {"": ours}, rules.confidence, rules.resamples, config.seed)[""]
        rows.append(
            Against(
                lineage=lineage.name,
                champion=label,
                champion_validation_loss=card.validation.loss,
                champion_bits_per_byte=card.validation.bits_per_byte,
                improvement=gain.mean if gain else None,
                improvement_low=gain.low if gain else None,
            )
        )
    return rows


def print_outside(console: Console, result: Outside) -> None:
    """The scores, and the comparison with each champion in words."""
    table = Table(title=result.model, title_justify="left")
    table.add_column("")
    for column in ("loss", "perplexity", "bits/byte", "rows", "tokens"):
        table.add_column(column, justify="right")
    for name, split in (("validation", result.scorecard.validation), ("test", result.scorecard.test)):
        figures = (f"{split.loss:.4f}", f"{split.perplexity:.2f}", f"{split.bits_per_byte:.4f}")
        table.add_row(name, *figures, f"{split.rows:,}", f"{split.tokens:,}")
    console.print(table)
    for row in result.against:
        ours = result.scorecard.validation
        if row.improvement is None or row.improvement_low is None:
            text = (
                f"{row.lineage}: other tokens than the champion's ({row.champion}), so only bits per byte compare:"
                f" {ours.bits_per_byte:.4f} against {row.champion_bits_per_byte:.4f}"
            )
        else:
            better = "below" if row.improvement > 0 else "above"
            proof = f"at least {row.improvement_low:+.4f} at the configured confidence"
            text = (
                f"{row.lineage}: validation loss {abs(row.improvement):.4f} nats {better} the champion's"
                f" ({row.champion}); the gain is {proof}"
            )
        console.print(text, markup=False, highlight=False, soft_wrap=True)
