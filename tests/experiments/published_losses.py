"""What the losses of a published experiment came to: by competition, by kind of rows, by other rules."""

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import yaml

from evaluation.compare import Difference, Gain, gain
from evaluation.data.splits import read_split
from evaluation.results import RowResults, read_results
from evaluation.scorecard import SplitScore
from orchestrator.views.leaderboard import RoundRow
from orchestrator.views.overfitting import fits
from orchestrator.views.tokens import tokens_of
from orchestrator.views.words import signed
from tests.experiments.naive import Judged
from tests.experiments.published_forms import FORMS, Held, markdown

CONFIGS = Path(__file__).parents[2] / "configs"
LEVEL = 0.05
"""The chance to err of each interval."""


def losses(forms: Sequence[Held]) -> list[str]:
    """The published table: test loss by competition, bits per byte in brackets, and what it took."""
    rounds = max(len(row.rounds) for held in forms for _, _, row in held.lineages)
    rows = []
    for held in forms:
        for name, lineage, row in held.lineages:
            cells = [_tested(one.test, held.on_test(lineage, one.champion)) for one in row.rounds]
            cells += [""] * (rounds - len(cells))
            tokens = tokens_of(lineage)
            shares = [tokens.on_champions_line, tokens.on_ingredients]
            rows.append([name, *cells, f"{tokens.spent:,}", *(f"{one / max(tokens.spent, 1):.0%}" for one in shares)])
    for one in forms[0].board.references:
        scored = read_results(forms[0].snapshot.run.reference(one.name) / "losses.parquet", "test")
        rows.append([one.name, _tested(one.test, scored), *[""] * (rounds + 2)])
    numbers = [str(number) for number in range(1, rounds)]
    head = ["", "base", *numbers, "tokens of everybody", "on the champion's line", "on what it blends"]
    return markdown(head, rows)


def _tested(test: dict[str, float], rows: RowResults) -> str:
    return f"{test['loss']:.3f} ± {_reach(rows):.3f} ({test['bits_per_byte']:.3f})"


def _reach(rows: RowResults) -> float:
    """Half of the 95 % interval of a loss over rows like these."""
    alone = gain(rows, rows.with_columns({"nats": 0 * rows.nats}))  # over a model that knows everything
    return alone.mean - _interval(alone).low


def _interval(found: Gain) -> Difference:
    return Difference.of(found.mean, [(found.standard_error**2, found.groups - 1)], LEVEL)


def cut(forms: Sequence[Held]) -> list[str]:
    """How much of the test rows `max_tokens` leaves each tokenizer: bits per byte are over that text alone."""
    held = forms[0]
    whole = sum(len(row.completion.encode()) for row in read_split(held.snapshot.run.split("test")))
    scored = {one.name: one.scorecard for one in held.snapshot.lineages} | dict(held.snapshot.references)
    rows = [[name, *_left(card.test, whole)] for name, card in scored.items() if card is not None and card.test]
    return markdown(["", "test rows", "cut short", "cut away", "completion tokens kept", "of the text"], rows)


def _left(score: SplitScore, whole: int) -> list[str]:
    counts = [score.rows, score.rows_cut_short, score.rows_cut_away, score.tokens]
    return [*(f"{count:,}" for count in counts), f"{score.bytes / whole:.1%}"]


def validation(forms: Sequence[Held]) -> list[str]:
    """The champion's loss on the rows that choose and on test rows, after each round."""
    rounds = max(len(row.rounds) for held in forms for _, _, row in held.lineages)
    rows = []
    for held in forms:
        for name, _, row in held.lineages:
            cells = [_both(one) for one in row.rounds]
            rows.append([name, *cells, *[""] * (rounds - len(cells))])
    return markdown(["", "base", *(str(number) for number in range(1, rounds))], rows)


def _both(row: RoundRow) -> str:
    title = "*" if row.dethroned else ""
    return f"{row.validation_loss:.3f} / {row.test['loss']:.3f}{title}"


def titles(forms: Sequence[Held]) -> list[str]:
    """Every title: what proved it, and the same gain on the rows that chose and on those that only report."""
    rows = []
    for held in forms:
        for name, lineage, _ in held.lineages:
            known = {(fit.champion, fit.over): fit for fit in fits(held.snapshot, lineage)}
            for verdict in lineage.verdicts:
                if verdict.dethroned and verdict.proof is not None:
                    fit, proof = known[verdict.champion, verdict.champion_before], verdict.proof
                    gap = f"{signed(fit.gap.mean)} ({signed(fit.gap.low)} to {signed(fit.gap.high)})"
                    proven = f"{signed(proof.improvement)}, at least {signed(proof.improvement_low)}"
                    gains = [signed(fit.on_validation.mean), proven, signed(fit.on_test.mean), gap]
                    rows.append([name, str(verdict.champion), *gains])
    head = ["", "champion", "gain on validation", "on proof", "on test", "validation over test (95 %)"]
    return markdown(head, rows)


def at_equal_tokens(forms: Sequence[Held]) -> list[str]:
    """How much lower one budget ends than equal rounds, on the same test rows; nothing where one of them is not run."""
    if len(forms) < len(FORMS):
        return []
    equal, whole = forms
    assert equal.snapshot.manifest is not None
    assert whole.snapshot.manifest is not None
    assert equal.snapshot.manifest.fingerprint == whole.snapshot.manifest.fingerprint, "their rows differ"
    lines = ["At equal tokens:", ""]
    for one, other in zip(equal.snapshot.lineages, whole.snapshot.lineages, strict=True):
        theirs, ours = equal.on_test(one, one.champion), whole.on_test(other, other.champion)
        reach = _interval(gain(theirs, ours))
        lines.append(
            f"- {one.name}: {theirs.loss:.3f} in equal rounds ({tokens_of(one).spent:,} tokens), {ours.loss:.3f} with"
            f" one budget ({tokens_of(other).spent:,}); lower by {reach.mean:.3f} (95 % interval over test rows"
            f" {reach.low:.3f} to {reach.high:.3f})."
        )
    return [*lines, ""]


def rules(judged: Sequence[tuple[str, Judged]]) -> list[str]:
    """What a naive rule would have done with the same entries."""
    rows = []
    for name, one in judged:
        proven = sum(change.is_proven for change in one.withheld)
        rows.append(
            [
                name,
                *(
                    f"{len(titles)} ({sum(change.is_noise for change in titles)})"
                    for titles in (one.always, one.if_lower, one.ours)
                ),
                f"{len(one.withheld)} ({sum(not change.is_noise for change in one.withheld)}, {proven} beyond doubt)",
            ]
        )
    head = [
        "",
        "titles if each winner takes it (test loss not lower)",
        "if it is lower on validation",
        "ours, proven",
        "ours withheld (lower on test)",
    ]
    lines = markdown(head, rows)
    for title, one in judged:
        pairs = zip(one.on_validation, one.curve, strict=True)
        lines.append(f"- {title}: each winner, validation / test: {', '.join(f'{v:.3f} / {t:.3f}' for v, t in pairs)}")
    return [*lines, ""]


def rises(name: str, forms: Sequence[Held], judged: Sequence[tuple[str, Judged]]) -> list[str]:
    """Where test loss rises again from one competition to the next: as published, by the first rule, and ours."""
    curves = published_curves(name)
    curves |= {f"{title}, each winner takes the title": one.curve for title, one in judged}
    curves |= {
        f"{title}, ours": [r.test["loss"] for r in row.rounds] for held in forms for title, _, row in held.lineages
    }
    rows = []
    for title, curve in curves.items():
        steps = list(enumerate(pairwise(curve), start=1))
        found = [
            f"{number}: {round(before, 3):g} to {round(after, 3):g}"
            for number, (before, after) in steps
            if after > before
        ]
        rows.append([title, f"{len(found)} of {len(steps)}", "; ".join(found)])
    return markdown(["", "rises", "in round"], rows)


def published_curves(name: str) -> dict[str, list[float]]:
    """Test losses that were published of the same data at full scale, the base first; none of other data."""
    config = CONFIGS / f"gradients-{name}.yaml"
    if not config.is_file():
        return {}
    drawn = yaml.safe_load(config.read_text(encoding="utf-8"))["references"]
    return {one["name"]: one["published"] for one in drawn if len(set(one.get("published", []))) > 1}
