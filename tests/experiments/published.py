"""`python -m tests.experiments.published NAME`: what an experiment of configs/experiments came to, as Markdown.

It reads the run directories of its two forms, runs/published/NAME-equal and NAME-whole, and writes what it says into
docs/experiments.md too, where that has marks for it.
"""

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

from cluster.store import LOCAL
from evaluation.compare import Difference, gain
from evaluation.results import read_results
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import LineageSnapshot, Snapshot, SnapshotReader
from orchestrator.views.leaderboard import Leaderboard, LineageRow, build
from orchestrator.views.overfitting import fits
from orchestrator.views.tokens import line_of, tokens_of
from orchestrator.views.words import duration, signed
from tests.experiments.naive import Judged, judge
from tests.experiments.published_picture import IMAGES, draw_published
from tests.experiments.table import DOCS, between_marks

RUNS = Path(__file__).parents[2] / "runs" / "published"
FORMS = {"equal": "equal rounds", "whole": "one budget"}


@dataclass(frozen=True)
class Held:
    """One form of an experiment, as it ended."""

    form: str
    snapshot: Snapshot
    board: Leaderboard

    @classmethod
    def read(cls, name: str, form: str) -> "Held":
        """From its run directory."""
        snapshot = SnapshotReader(RunDirectory(RUNS / f"{name}-{form}")).read()
        assert snapshot.is_finished, f"{RUNS / f'{name}-{form}'}: is not finished"
        return cls(FORMS[form], snapshot, build(snapshot, snapshot.state))

    @property
    def lineages(self) -> Iterator[tuple[str, LineageSnapshot, LineageRow]]:
        """Each with what it is called in a table."""
        for one, row in zip(self.snapshot.lineages, self.board.lineages, strict=True):
            yield f"{one.name}, {self.form}", one, row


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table; the first column is text, the others are numbers."""
    lines = [f"| {' | '.join(head)} |", "|---" + "|--:" * (len(head) - 1) + "|"]
    return [*lines, *(f"| {' | '.join(row)} |" for row in rows), ""]


def losses(forms: Sequence[Held]) -> list[str]:
    """The published table: test loss by competition, bits per byte in brackets, and what it took."""
    rounds = max(len(row.rounds) for held in forms for _, _, row in held.lineages)
    rows = []
    for held in forms:
        for name, lineage, row in held.lineages:
            cells = [_tested(one.test) for one in row.rounds]
            cells += [""] * (rounds - len(cells))
            tokens = tokens_of(lineage)
            rows.append([name, *cells, f"{tokens.spent:,}", f"{tokens.on_champions_line / tokens.spent:.0%}"])
    for one in forms[0].board.references:
        rows.append([one.name, *[_tested(one.test)], *[""] * (rounds + 1)])
    head = ["", "base", *(str(number) for number in range(1, rounds)), "tokens of everybody", "on the champion's line"]
    return markdown(head, rows)


def _tested(test: dict[str, float]) -> str:
    return f"{test['loss']:.3f} ({test['bits_per_byte']:.3f})"


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
        theirs, ours = (
            read_results(held.snapshot.run.scores(lineage.name, lineage.champion) / "losses.parquet", "test")
            for held, lineage in ((equal, one), (whole, other))
        )
        found = gain(theirs, ours)
        reach = Difference.of(found.mean, [(found.standard_error**2, found.groups - 1)], 0.05)
        lines.append(
            f"- {one.name}: {theirs.loss:.3f} in equal rounds, {ours.loss:.3f} with one budget; lower by"
            f" {found.mean:.3f} (95 % interval over test rows {reach.low:.3f} to {reach.high:.3f})."
        )
    return [*lines, ""]


def ancestry(forms: Sequence[Held]) -> list[str]:
    """How each champion came to be."""
    lines = []
    for held in forms:
        for name, lineage, _ in held.lineages:
            line = " → ".join(str(model) for model in reversed(line_of(lineage, lineage.champion)))
            lines.append(f"- {name}: {line}")
    return [*lines, ""]


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
            place = f"{mean(scored):.1f}" if scored else ""
            won, titled = sum(one[1] for one in own), sum(one[2] for one in own)
            failed = len(own) - len(scored)
            rows.append(
                [f"{name or 'climb and line'}, {held.form}", str(len(own)), str(won), str(titled), place, str(failed)]
            )
    return markdown(["", "entries", "rounds won", "titles", "mean place", "forfeits"], rows)


def rules(judged: Sequence[tuple[str, Judged]]) -> list[str]:
    """What a naive rule would have done with the same entries."""
    rows = []
    for name, one in judged:
        rises = sum(later > before for before, later in zip(one.curve, one.curve[1:], strict=False))
        proven = sum(change.is_proven for change in one.withheld)
        rows.append(
            [
                name,
                *(
                    f"{len(titles)} ({sum(change.is_noise for change in titles)})"
                    for titles in (one.always, one.if_lower, one.ours)
                ),
                str(rises),
                f"{len(one.withheld)} ({sum(not change.is_noise for change in one.withheld)}, {proven} beyond doubt)",
            ]
        )
    head = [
        "",
        "titles if each winner takes it (test loss not lower)",
        "if it is lower on validation",
        "ours, proven",
        "rises of the first rule's curve",
        "ours withheld (lower on test)",
    ]
    return markdown(head, rows)


def costs(forms: Sequence[Held]) -> list[str]:
    """What each form took."""
    lines = []
    for held in forms:
        own = [e for _, _, row in held.lineages for r in row.rounds for e in r.entries]
        lines.append(
            f"- {held.form}: {len(own)} entries, which held {duration(sum(e.device_seconds for e in own))} of CPU time;"
            " scoring is not in it."
        )
    return [*lines, ""]


def data(held: Held) -> list[str]:
    """What was left out of the rows, and how they were split."""
    manifest = held.snapshot.manifest
    assert manifest is not None
    left = "; ".join(f"{count:,} {why}" for why, count in manifest.dropped.items()) or "none left out"
    near = manifest.near_duplicates
    alike = f" Of the rows left to train on, {near.rows:,} nearly say what a held-out row says." if near else ""
    counts = ", ".join(f"{count:,} {split}" for split, count in manifest.counts.items())
    return [f"{manifest.rows_read:,} rows read: {left}.{alike} {counts}.", ""]


def generations(held: Held) -> list[str]:
    """What base and champion write on three test prompts."""
    lines = []
    for name, lineage, _ in held.lineages:
        before = lineage.samples
        after = None if lineage.champion.is_base else lineage.rounds[lineage.champion.round - 1].samples
        if before is None or after is None:
            continue
        rows = [
            [_cell(one.prompt), _cell(one.completion), _cell(other.completion)]
            for one, other in list(zip(before.samples, after.samples, strict=True))[:3]
        ]
        lines += [f"{name}:", "", "| prompt | base | champion |", "|---|---|---|"]
        lines += [*(f"| {' | '.join(row)} |" for row in rows), ""]
    return lines


def _cell(text: str, longest: int = 220) -> str:
    flat = " ".join(text.replace("|", "/").split())
    return f"`{flat[:longest].replace('`', chr(39))}{'…' if len(flat) > longest else ''}`" if flat else "(nothing)"


def forms_of(name: str) -> list[Held]:
    """The forms of an experiment that are run."""
    return [Held.read(name, form) for form in FORMS if (RUNS / f"{name}-{form}" / "tournament.yaml").is_file()]


def text(name: str) -> str:
    """Everything that is said of an experiment."""
    forms = forms_of(name)
    with tempfile.TemporaryDirectory() as scratch:
        judged = [
            (title, judge(held.snapshot, lineage, Path(scratch) / held.form))
            for held in forms
            for title, lineage, _ in held.lineages
        ]
    commit = (forms[0].snapshot.environment or {}).get("git_commit")
    made = f"Commit {str(commit)[:12]}, seed {forms[0].snapshot.config.seed}."
    lines = [
        f"Test loss after each competition, in nats per completion token, and in brackets bits per byte. {made}",
        "",
        *losses(forms),
        *at_equal_tokens(forms),
        "The champions' lines:",
        "",
        *ancestry(forms),
        "Titles, with the gain over the champion before on each kind of rows:",
        "",
        *titles(forms),
        "The same entries by other rules, with test rows as the judge:",
        "",
        *rules(judged),
        *[f"- {title}: each winner's test loss, {' '.join(f'{x:.3f}' for x in one.curve)}" for title, one in judged],
        "",
        "Who won:",
        "",
        *who_won(forms),
        *costs(forms),
        *data(forms[0]),
        *generations(forms[-1]),
    ]
    return "\n".join(lines)


def main() -> None:
    """Print it, keep it beside the runs, and put it where the docs have marks for it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    name = parser.parse_args().name
    told = text(name)
    LOCAL.write_text(RUNS / f"{name}.md", told)
    DOCS.write_text(between_marks(DOCS.read_text(), name, "make published", lambda name: told))
    draw_published([(one.form, one.board) for one in forms_of(name)], IMAGES / f"published-{name}.png")
    print(told)


if __name__ == "__main__":
    main()
