"""Who competed in a published experiment: how champions came to be, who won, with how many tokens, in what time."""

from collections.abc import Sequence
from statistics import mean

from competitors.soup.blend import Blend
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.snapshot import LineageSnapshot
from orchestrator.views.tokens import line_of
from orchestrator.views.words import duration
from tests.experiments.published_forms import Held, markdown


def ancestry(forms: Sequence[Held]) -> list[str]:
    """How each champion came to be; in brackets what a soup on its line blends."""
    lines = []
    for held in forms:
        for name, lineage, _ in held.lineages:
            line = " → ".join(_model(lineage, model) for model in reversed(line_of(lineage, lineage.champion)))
            lines.append(f"- {name}: {line}")
    return [*lines, ""]


def _model(lineage: LineageSnapshot, model: ModelRef) -> str:
    entry = lineage.entry(model)
    soup = None if entry is None else Blend.read_if_there(entry.folder / "soup.json")
    return str(model) if soup is None else f"{model} ({' + '.join(soup.blended)})"


def who_won(forms: Sequence[Held]) -> list[str]:
    """What each competitor of the config came to, its children by the allocation counted apart."""
    rows = []
    for held in forms:
        named = [recipe.name for recipe in held.snapshot.config.competitors]
        entries = [
            (e, r.winner == e.competitor, r.dethroned and r.winner == e.competitor, place + 1)
            for _, _, row in held.lineages
            for r in row.rounds
            for place, e in enumerate(r.entries)
        ]
        for name in [*named, None]:
            own = [one for one in entries if (one[0].competitor == name if name else one[0].competitor not in named)]
            if not own:
                continue
            scored = [place for e, _, _, place in own if e.status == "scored"]
            counts = [len(own), sum(one[1] for one in own), sum(one[2] for one in own)]
            place = f"{mean(scored):.1f}" if scored else ""
            counts_out = [sum(e.status == status for e, *_ in own) for status in ("forfeit", "rejected")]
            tokens = f"{mean(e.train_tokens for e, *_ in own):,.0f}"
            cells = [*map(str, counts), place, *map(str, counts_out), tokens]
            rows.append([f"{name or 'climb and line'}, {held.form}", *cells])
    head = ["", "entries", "rounds won", "titles", "mean place", "forfeits", "rejected", "tokens of an entry"]
    return [*markdown(head, rows), *_races(forms)]


def _races(forms: Sequence[Held]) -> list[str]:
    """What a race gave each of its entries: a search trains several recipes, each of which needs its steps."""
    rows, named = [], list[str]()
    for held in forms:
        for name, lineage, _ in held.lineages:
            roster = lineage.rounds[0].roster
            if roster.phase == "race":
                named = [entry.recipe.name for entry in roster.entries]
                given = [(e.budget.tokens if e.recipe.trains and e.budget else None) for e in roster.entries]
                rows.append([name, *("" if tokens is None else f"{tokens:,}" for tokens in given)])
    if not rows:
        return []
    return ["Tokens that the race gave each, which are not the same for all:", "", *markdown(["", *named], rows)]


def costs(forms: Sequence[Held]) -> list[str]:
    """What each form took."""
    lines = []
    for held in forms:
        own = [e for _, _, row in held.lineages for r in row.rounds for e in r.entries]
        wall = held.snapshot.spent.wall_seconds
        took = f"{duration(wall)} for all rounds, interruptions not counted" if wall else "its time is not on record"
        lines.append(
            f"- {held.form}: {took}; {len(own)} entries, which held {duration(sum(e.device_seconds for e in own))} of"
            " CPU time; scoring is not in that."
        )
    return [*lines, ""]


def data(held: Held) -> list[str]:
    """What was left out of the rows, and how they were split."""
    manifest = held.snapshot.manifest
    assert manifest is not None
    left = "; ".join(f"{count:,} {why}" for why, count in manifest.dropped.items()) or "none left out"
    near = manifest.near_duplicates
    alike = ""
    if near:
        then = "and was removed" if near.handling == "remove" else "and is trained on all the same"
        alike = f" Rows of which each nearly says what a held-out row says, {then}: {near.rows:,}."
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    return [f"{manifest.rows_read:,} rows read: {left}.{alike} {counts}.", ""]


def generations(forms: Sequence[Held]) -> list[str]:
    """What the base and the champion of each form write on three test prompts."""
    lines = []
    for index, first in enumerate(forms[0].snapshot.lineages):
        if first.samples is None:
            continue
        columns = {"prompt": [one.prompt for one in first.samples.samples]}
        columns["base"] = [one.completion for one in first.samples.samples]
        kept = []
        for held in forms:
            lineage = held.snapshot.lineages[index]
            if lineage.champion.is_base:
                kept.append(f"In {held.form} the base is still the champion.")
                continue
            after = lineage.rounds[lineage.champion.round - 1].samples
            assert after is not None
            columns[f"{lineage.champion}, {held.form}"] = [one.completion for one in after.samples]
        rows = list(zip(*columns.values(), strict=True))[:3]
        lines += [" ".join([f"{first.name}:", *kept]), "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        lines += [*(f"| {' | '.join(map(_cell, row))} |" for row in rows), ""]
    return lines


def _cell(text: str, longest: int = 220) -> str:
    flat = " ".join(text.replace("|", "/").split())
    return f"`{flat[:longest].replace('`', chr(39))}{'…' if len(flat) > longest else ''}`" if flat else "(nothing)"
