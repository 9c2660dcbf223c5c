"""`tournament evaluate`: any model or adapter on a run's held-out rows, paired against its champions.

An outside model is scored on the test rows as a reference is. One of the tournament's own entries is not, unless it has
been champion: test rows only report.
"""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from cluster.errors import Forfeit, UserError
from cluster.records import Record
from competitors.output import model_form
from evaluation.compare import gain, is_same
from evaluation.data.split import Split
from evaluation.evaluator import score_again, score_also, score_model
from evaluation.figures import costs_of, figure_of, measured
from evaluation.results import RowResults, read_results
from evaluation.scorecard import Scorecard
from evaluation.submissions.folder import ADAPTER_CONFIG, read_object
from evaluation.submissions.inspection import Form, inspect, inspect_outsider
from orchestrator.config.sections import Selection
from orchestrator.field.model_ref import BASE, ModelRef
from orchestrator.record.jobs import as_submission, scoring_job
from orchestrator.record.records import ModelFolder
from orchestrator.record.snapshot import Snapshot
from orchestrator.views.words import print_line


class Compared(Record):
    """The model against a champion by one figure."""

    improvement: float | None
    """Nats per token below the champion's loss, or by how much another figure is better; None where the models were
    scored on other tokens, so that this figure does not compare."""
    improvement_low: float | None
    doubt: str = ""
    """Why nothing is proven by these rows, however large the gain; empty where something can be."""


class Against(Compared):
    """The model against one lineage's champion, by the figure that chooses."""

    lineage: str
    champion: ModelRef
    rows: Split
    """The held-out split on which both are scored and compared: all figures here are of it."""
    loss: float
    champion_loss: float
    bits_per_byte: float
    champion_bits_per_byte: float
    metric: str = "loss"
    champion_metric: float | None = None
    """The champion's value, where that is not the loss."""
    by_loss: Compared | None = None
    """The same by the loss, where another figure chooses."""


class Evaluated(Record):
    """What `tournament evaluate --json` prints."""

    model: str
    scorecard: Scorecard
    entry: ModelRef | None = None
    """Which of the tournament's entries it is, where it is one that was never champion: it has no test loss."""
    against: list[Against]


def evaluate_model(snapshot: Snapshot, model: Path, base: Path | None, prompt: str) -> Evaluated:
    """Score the model in `model` as the tournament scores its own, in this process."""
    config = snapshot.config
    if prompt not in ("plain", "chat"):
        raise UserError(f"--prompt {prompt}: give plain or chat")
    if model.absolute().is_relative_to(snapshot.run.root):
        snapshot.run.whole(model)
    form = model_form(model)
    if form is None:
        raise UserError(f"{model}: holds neither a full model nor a PEFT adapter with safetensors weights")
    champions = {is_entry: _champions(snapshot, is_entry) for is_entry in (False, True)}  # what is wrong is said early
    try:
        seed, content = _through_the_door(snapshot, model, form, base)
        with tempfile.TemporaryDirectory() as scratch:
            tokenizer = model if prompt == "chat" and form == "full" else seed  # the template it knows
            job = scoring_job(snapshot.run, config, str(model), model, tokenizer, Path(scratch))
            job = job.model_copy(update={"prompt": prompt})
            job = job if seed == model else as_submission(job, form, seed)
            card, turns = score_model(job), tuple(config.choosing(turn + 1) for turn in range(1, config.turns))
            if turns:
                score_again(job.model_copy(update={"splits": turns}))
            entry = entry_that_is(
                snapshot, card.model_sha256, content, partial(read_results, job.out / "losses.parquet")
            )
            if entry is None:
                card = score_also(job, "proof", "test")
            met = champions[entry is not None]
            ours = {one.split: _rows(config.selection, job.out, one.split) for one in met.values()}
            compared = against(snapshot, ours, met)
    except Forfeit as reason:
        raise UserError(f"{model}: {reason}") from reason
    return Evaluated(model=str(model), scorecard=card, entry=entry, against=compared)


def entry_that_is(
    snapshot: Snapshot, sha256: str, content: str, rows_on: Callable[[Split], RowResults]
) -> ModelRef | None:
    """The entry of this tournament that a model is, where that was never champion: by its files' hash, as a promoted
    one, by its values', or by its losses on the rows that choose, in whatever files and form it lies here.

    A copy of a base or a champion, as a control hands in, is what it copies.
    """
    run, choosing = snapshot.run, snapshot.config.choosing
    for lineage in snapshot.lineages:
        entries = {ModelRef(e.name, one.number): e for one in lineage.rounds for e in one.entries}
        scored = [model for model in (BASE, *entries) if lineage.scorecard_of(model) is not None]
        files = [run.round(lineage.name, number) / "seed.json" for number in range(len(lineage.rounds) + 1)]
        seeds = [record for file in files if (record := run.read(ModelFolder, file)) is not None]
        found = {record.model for record in seeds if record.sha256 == sha256}
        found |= {model for model, one in entries.items() if one.inspection and one.inspection.content == content}
        found |= {
            model
            for model in scored
            if is_same(
                read_results(run.scores(lineage.name, model) / "losses.parquet", split := choosing(model.round)),
                rows_on(split),
            )
        }
        if found:
            reported = {BASE, *(verdict.champion for verdict in lineage.verdicts)}
            return None if reported & found else min(found, key=lambda model: model.round)
    return None


def _through_the_door(snapshot: Snapshot, model: Path, form: Form, base: Path | None) -> tuple[Path, str]:
    """What the model is scored on, once it has passed inspection: the seed of the first lineage that takes it for a
    submission, or itself, where it is a model of another kind; and the hash of its values. Forfeit where it may not be
    scored at all."""
    if form == "adapter":
        stands_on = _base_of(model, base)
        return stands_on, inspect(model, form, stands_on, is_control=True, hub_links=True).content
    for lineage in snapshot.lineages:
        seed = _seed_of(snapshot, lineage.name, lineage.lineage.base)
        with suppress(Forfeit):
            if seed is not None:
                return seed, inspect(model, form, seed, is_control=True, hub_links=True).content
    return model, inspect_outsider(model).content


def _seed_of(snapshot: Snapshot, lineage: str, base: str) -> Path | None:
    """A model of the lineage, with its config and tokenizer; None where none lies here yet."""
    run = snapshot.run
    folders = [run.model(base), Path(base).expanduser(), *sorted(run.lineage(lineage).glob("round-*/seed"))]
    found = next((folder for folder in folders if folder.is_dir() and model_form(folder) == "full"), None)
    return run.whole(found) if found is not None and found.is_relative_to(run.root) else found


def _base_of(adapter: Path, base: Path | None) -> Path:
    named = base or Path(str(read_object((adapter / ADAPTER_CONFIG).resolve()).get("base_model_name_or_path") or ""))
    if model_form(named) != "full":
        raise UserError(f"{adapter}: stands on {named}, which is no model folder here: name it with --base")
    return named


Rows = dict[str, RowResults]
"""A model's results as the loss and the figure that chooses see them, by the figures' names."""


class Champion(NamedTuple):
    """A lineage's champion, with its results on the split on which a model is compared with it."""

    model: ModelRef
    split: Split
    rows: Rows


Champions = dict[str, Champion]
"""By lineage: those that are scored."""


def _rows(rules: Selection, folder: Path, split: Split) -> Rows:
    return {name: costs_of(folder, split, name) for name in {"loss", "bits_per_byte", rules.metric}}


def _champions(snapshot: Snapshot, is_entry: bool) -> Champions:
    """On the rows that prove; for an entry of the tournament, which was never to be scored on them, on those that chose
    the champion."""
    found: Champions = {}
    for lineage in snapshot.lineages:
        if lineage.scorecard_of(lineage.champion) is not None:
            folder = snapshot.run.scores(lineage.name, lineage.champion)
            split = snapshot.config.choosing(lineage.champion.round) if is_entry else "proof"
            rows = _rows(snapshot.config.selection, folder, split)
            found[lineage.name] = Champion(lineage.champion, split, rows)
    return found


def against(snapshot: Snapshot, ours: Mapping[Split, Rows], champions: Champions) -> list[Against]:
    """A model's rows against each lineage's champion's, by the figure that chooses, and by the loss beside it."""
    rules, found = snapshot.config.selection, []
    for lineage, (champion, split, theirs) in champions.items():
        own = ours[split]
        by = {name: _compared(own[name], theirs[name], 1 - rules.confidence) for name in ("loss", rules.metric)}
        is_loss = rules.metric == "loss"
        found.append(
            Against(
                **by[rules.metric].model_dump(),
                lineage=lineage,
                champion=champion,
                rows=split,
                loss=_value(own, "loss"),
                champion_loss=_value(theirs, "loss"),
                bits_per_byte=_value(own, "bits_per_byte"),
                champion_bits_per_byte=_value(theirs, "bits_per_byte"),
                metric=rules.metric,
                champion_metric=None if is_loss else _value(theirs, rules.metric),
                by_loss=None if is_loss else by["loss"],
            )
        )
    return found


def _value(rows: Rows, name: str) -> float:
    return figure_of(name).of_cost(rows[name].loss)


def _compared(ours: RowResults, theirs: RowResults, level: float) -> Compared:
    if not np.array_equal(ours.tokens, theirs.tokens):
        return Compared(improvement=None, improvement_low=None)
    found = gain(theirs, ours)
    return Compared(improvement=found.mean, improvement_low=found.low(level), doubt=found.doubt)


def print_evaluated(console: Console, result: Evaluated) -> None:
    """The scores, and the comparison with each champion in words."""
    table = Table(title=Text(result.model), title_justify="left")
    table.add_column("")
    card = result.scorecard
    scored = {"validation": card.validation, "proof": card.proof, "test": card.test}
    shown = measured([card.validation.figures])
    for title in (*(figure.title for figure in shown), "rows", "tokens"):
        table.add_column(title, justify="right")
    for name, split in scored.items():
        if split is None:
            continue
        figures = [figure.text(split.figures.get(figure.name)) for figure in shown]
        table.add_row(name, *figures, f"{split.rows:,}", f"{split.tokens:,}")
    console.print(table)
    if result.entry is not None:
        print_line(console, f"no test loss: it is {result.entry.in_words}, and only champions are scored on test rows")
    for row in result.against:
        print_line(console, _in_words(row))


def _in_words(row: Against) -> str:
    loss = row.by_loss or row
    if loss.improvement is None:
        bits = f"{row.bits_per_byte:.4f} against {row.champion_bits_per_byte:.4f}"
        by_loss = f"other tokens than the champion's ({row.champion}), so only bits per byte compare: {bits}"
    else:
        better = "below" if loss.improvement > 0 else "above"
        by_loss = f"{abs(loss.improvement):.4f} nats {better} the champion's loss ({row.champion}); {_at_least(loss)}"
    if row.by_loss is None:
        return f"{row.lineage}: {by_loss}"
    figure = figure_of(row.metric)
    if row.improvement is None:
        return f"{row.lineage}: by {figure.title}, which chooses, other tokens do not compare; {by_loss}"
    better = f"{abs(row.improvement):.4f} {'better' if row.improvement > 0 else 'worse'} than the champion's"
    return f"{row.lineage}: its {figure.title}, which chooses, is {better}; {_at_least(row)}. By the loss: {by_loss}"


def _at_least(by: Compared) -> str:
    doubt = f", but {by.doubt}" if by.doubt else ""
    return f"the gain is at least {by.improvement_low:+.4f} at the configured confidence{doubt}"
