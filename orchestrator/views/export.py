"""`tournament export`: a champion as a plain Hugging Face model folder with a model card."""

from pathlib import Path

from cluster.errors import UserError
from cluster.store import LOCAL
from competitors.contract import Submission
from evaluation.scorecard import Scorecard
from orchestrator.config import TournamentConfig
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.verdict import Verdict
from orchestrator.views.leaderboard import field_of, scorecard_of, settled


def export_champion(run: RunDirectory, destination: Path, lineage: str | None) -> Path:
    """Copy the champion's folder to `destination` and write its card. UserError if there is none to export."""
    config = run.config
    names = [item.name for item in config.lineages]
    if lineage is None and len(names) > 1:
        raise UserError(f"--lineage: this tournament has several: {', '.join(names)}")
    chosen = next((item for item in config.lineages if item.name == (lineage or names[0])), None)
    if chosen is None:
        raise UserError(f"--lineage {lineage}: this tournament has {', '.join(names)}")
    if destination.exists():
        raise UserError(f"{destination}: is there already")
    verdicts = settled(config, run, chosen)
    label = verdicts[-1].champion if verdicts else "base"
    if label == "base":
        raise UserError(f"{run.root}: lineage {chosen.name} has no champion but its base model so far")
    number = int(label.partition("@")[2])
    try:
        LOCAL.link_folder(run.round(chosen.name, number) / "champion", destination.absolute())
    except OSError as error:
        raise UserError(f"{destination}: cannot be written: {error.strerror}") from error
    LOCAL.write_text(destination / "README.md", model_card(config, run, chosen.name, chosen.base, verdicts))
    return destination


def model_card(config: TournamentConfig, run: RunDirectory, lineage: str, base: str, verdicts: list[Verdict]) -> str:
    """The model card: where the champion comes from, how it scored, and how to load it."""
    label = verdicts[-1].champion
    name, _, number = label.partition("@")
    recipe = next(e.recipe for e in field_of(config, run, lineage, int(number)) if e.recipe.name == name)
    first = Scorecard.read(scorecard_of(run, lineage, "base"))
    card = Scorecard.read(scorecard_of(run, lineage, label))
    submission = Submission.read(scorecard_of(run, lineage, label).with_name("submission.json"))
    hub_base = f"base_model: {base}\n" if base.count("/") == 1 and not base.startswith((".", "/")) else ""
    rounds = "\n".join(
        f"| {v.round} | {v.winner or 'none'} | {v.seed_validation_loss:.4f} | {v.champion} |" for v in verdicts
    )
    return f"""---
library_name: transformers
pipeline_tag: text-generation
{hub_base}tags: [tournament]
---

# {config.name}: champion of lineage {lineage}

Fine-tuned from `{base}` on `{config.data.source}` by a tournament of {len(config.competitors)} recipes over
{len(verdicts)} rounds. The title was won in round {label.partition("@")[2]} by `{recipe.name}` ({recipe.summary}).

| | base | champion |
|---|---|---|
| test loss, nats per completion token | {first.test.loss:.4f} | {card.test.loss:.4f} |
| test bits per byte | {first.test.bits_per_byte:.4f} | {card.test.bits_per_byte:.4f} |
| validation loss (chose the champion) | {first.validation.loss:.4f} | {card.validation.loss:.4f} |

Scored on {card.test.rows} test rows that were used for no choice.

| round | winner | validation loss of the next seed | champion after it |
|---|---|---|---|
{rounds}

The winning entry trained on {submission.train_tokens:,} tokens in its round. A prompt is written as
`{config.data.prompt!r}`, tokenised apart from the completion.

```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained("PATH")
tokenizer = AutoTokenizer.from_pretrained("PATH")
```
"""
