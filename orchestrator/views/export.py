"""`tournament export`: a champion as a plain Hugging Face model folder with a model card."""

from pathlib import Path

from cluster.errors import BrokenRecord, UserError
from cluster.text import as_code, discreet
from competitors.output import model_form
from evaluation.figures import measured
from orchestrator.field.model_ref import BASE
from orchestrator.record.snapshot import LineageSnapshot, Snapshot
from orchestrator.views.columns import required, submission_of
from orchestrator.views.words import is_missing


def export_champion(snapshot: Snapshot, dest: Path, lineage: str | None) -> Path:
    """Copy the champion's folder to `dest` and write its card. UserError if there is none to export."""
    chosen = _chosen(snapshot, lineage)
    if dest.exists():
        raise UserError(f"{dest}: is there already")
    if chosen.champion.is_base:
        raise UserError(f"{snapshot.run.root}: lineage {chosen.name} has no champion but its base model so far")
    crowned = chosen.rounds[chosen.champion.round - 1]
    folder = required(crowned.champion, crowned.folder / "champion.json").path
    if folder is None or model_form(folder) != "full":
        raise BrokenRecord(is_missing(folder or crowned.folder / "champion"))
    card = model_card(snapshot, chosen)
    try:
        snapshot.run.store.copy_folder(snapshot.run.whole(folder), dest.absolute())
        snapshot.run.store.write_text(dest.absolute() / "README.md", card)
    except OSError as error:
        raise UserError(f"{dest}: cannot be written: {error.strerror}") from error
    return dest


def _chosen(snapshot: Snapshot, name: str | None) -> LineageSnapshot:
    names = [one.name for one in snapshot.lineages]
    if name is None and len(names) > 1:
        raise UserError(f"--lineage: this tournament has several: {', '.join(names)}")
    if name is not None and name not in names:
        raise UserError(f"--lineage {name}: this tournament has {', '.join(names)}")
    return snapshot.lineage(name or names[0])


def model_card(snapshot: Snapshot, lineage: LineageSnapshot) -> str:
    """The model card: where the champion comes from, how it scored, and how to load it."""
    config, run, champion = snapshot.config, snapshot.run, lineage.champion
    scores = run.scores(lineage.name, champion)
    entry = required(lineage.entry(champion), scores)
    first = required(lineage.scorecard, run.scores(lineage.name, BASE) / "scorecard.json")
    card = required(entry.scorecard, scores / "scorecard.json")
    base, recipe = lineage.lineage.base, entry.entry.recipe
    source = discreet(", ".join(config.data.sources))
    hub_base = f"base_model: {base}\n" if base.count("/") == 1 and not base.startswith((".", "/")) else ""
    figures = "\n".join(
        f"| test {one.heading}"
        f" | {one.text(first.test_figures.get(one.name))} | {one.text(card.test_figures.get(one.name))} |"
        for one in measured([first.test_figures, card.test_figures])
    )
    rounds = "\n".join(
        f"| {v.round} | {v.winner or 'none'} | {v.seed_validation_loss:.4f} | {v.champion} |" for v in lineage.verdicts
    )
    rounds_run = "1 round" if len(lineage.settled) == 1 else f"{len(lineage.settled)} rounds"
    losses = f"{first.validation.loss:.4f} | {card.validation.loss:.4f}"
    # Where rows rotate the two were scored on different ones.
    chosen_by = "" if config.data.rotates else f"| validation loss (chose the champion) | {losses} |\n"
    return f"""---
library_name: transformers
pipeline_tag: text-generation
{hub_base}tags: [tournament]
---

# {config.name}: champion of lineage {lineage.name}

Fine-tuned from {as_code(base)} on {as_code(source)} by a tournament of
{len(lineage.competitors)} recipes over {rounds_run}. The title was
won in round {champion.round} by `{recipe.name}` ({recipe.summary}).

| | base | champion |
|---|---|---|
{figures}
{chosen_by}
Scored on {first.reported.rows} test rows that were used for no choice.

| round | winner | validation loss of the next seed | champion after it |
|---|---|---|---|
{rounds}

The winning entry trained on {submission_of(entry).train_tokens:,} tokens in its round. A prompt is written as
{as_code(repr(config.data.prompt))}, tokenised apart from the completion.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
```
"""
