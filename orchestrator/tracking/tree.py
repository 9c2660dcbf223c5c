"""What MLflow is to show of a tournament: a tree of runs, derived from a snapshot alone.

Each run is a `Part`: a key, what it follows from, and how to build its `View`. Nothing here knows MLflow; `sync.py`
sends what is new.

    tournament            key ""                    the config, the data, the leaderboard, the report
    ├── lineage           "llama"                   the champion's losses by round: a line in the chart
    │   └── round         "llama/1"                 the verdict in words
    │       └── competitor  "llama/1/lora-r16"      train loss over tokens, scores, costs
    └── reference         "reference:<name>"        a horizontal line in the same chart
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from cluster.text import discreet
from evaluation.figures import FIGURES
from orchestrator.config.comparison import flatten
from orchestrator.config.sections import Lineage, Reference
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.palette import style
from orchestrator.record.snapshot import EntrySnapshot, LineageSnapshot, RoundSnapshot, Snapshot, has_ended
from orchestrator.tracking import words
from orchestrator.tracking.points import Point, of_entry, of_lineage, of_scorecard

Status = Literal["open", "FINISHED", "FAILED"]
"""Of a run; `open` is what is still under way, and ends with the tournament."""
MOST_SETTINGS = 3000
"""Of a tournament's run; all of them are in its tournament.yaml."""


@dataclass(frozen=True)
class Dataset:
    """A split, by its digest."""

    split: str
    name: str
    digest: str
    path: Path
    rows: int
    source: str


@dataclass(frozen=True)
class Model:
    """A champion to register under the run that trained it: its name there, and where its weights lie."""

    name: str
    path: Path
    tags: dict[str, str]
    description: str
    about: str
    """The registered model's own description, and its tags."""
    model_tags: dict[str, str]


@dataclass(frozen=True)
class View:
    """One MLflow run as it should be now."""

    name: str
    began_ms: int
    status: Status = "open"
    ended_ms: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    note: str = ""
    params: dict[str, str] = field(default_factory=dict)
    points: list[Point] = field(default_factory=list)
    artifacts: list[Path] = field(default_factory=list)
    """Files to send where they are there."""
    datasets: list[Dataset] = field(default_factory=list)
    progress: Path | None = None
    """The file that a competitor reports to."""
    attempt: int = 0
    """Which try of an entry `progress` belongs to; another one begins its file anew."""
    model: Model | None = None


@dataclass(frozen=True)
class Part:
    """One run of the tree: where it hangs, what it follows from, and how to build its view.

    While `sources` are equal and `files` look the same, the view is the same.
    """

    key: str
    parent: str | None
    level: Literal["tournament", "lineage", "round", "competitor", "reference"]
    sources: tuple[object, ...]
    files: tuple[Path, ...]
    build: Callable[[], View]


def parts(snapshot: Snapshot) -> Iterator[Part]:
    """All runs that the record calls for, parents first."""
    yield Part("", None, "tournament", (snapshot,), _files(snapshot), partial(_tournament, snapshot))
    for reference in snapshot.config.references:
        sources = (snapshot.references.get(reference.name), snapshot.config.all_rounds)
        build = partial(_reference, snapshot, reference)
        yield Part(f"reference:{reference.name}", "", "reference", sources, (), build)
    for lineage in snapshot.lineages:
        if lineage.scorecard is None and not lineage.rounds:
            continue
        build = partial(_lineage, snapshot, lineage)
        yield Part(lineage.name, "", "lineage", (lineage, snapshot.config.all_rounds), (), build)
        for one in lineage.rounds:
            yield from _round_parts(snapshot, lineage, one)


def _round_parts(snapshot: Snapshot, lineage: LineageSnapshot, one: RoundSnapshot) -> Iterator[Part]:
    key = f"{lineage.name}/{one.number}"
    yield Part(key, lineage.name, "round", (one.roster, one.verdict), (), partial(_round, lineage, one))
    for entry in one.entries:
        if entry.brief is not None:
            # After the verdict nobody reports any more.
            files = (entry.progress_file,) if one.verdict is None else ()
            build = partial(_competitor, snapshot, lineage, one, entry)
            yield Part(f"{key}/{entry.name}", key, "competitor", (entry, one.verdict, one.champion), files, build)


def _files(snapshot: Snapshot) -> tuple[Path, ...]:
    """What the tournament's run has as artifacts."""
    run = snapshot.run
    return run.config_file, run.environment_file, run.leaderboard_file, run.report_file


def _tournament(snapshot: Snapshot) -> View:
    config = snapshot.config
    return View(
        name=config.name,
        began_ms=_began(snapshot),
        tags={"data": discreet(", ".join(config.data.sources)), "rounds": str(config.all_rounds)},
        note=words.about_tournament(snapshot),
        params=words.parameters(_settings(config)),
        artifacts=list(_files(snapshot)),
        datasets=_datasets(snapshot),
    )


def _settings(config: TournamentConfig) -> list[tuple[str, object]]:
    """The config's values; without the competitors', which are on their own runs too, where these are very many:
    MLflow looks at all parameters of a run for each batch of more."""
    found = list(flatten(config.model_dump(mode="json", by_alias=True)))
    return found if len(found) <= MOST_SETTINGS else [one for one in found if not one[0].startswith("competitors")]


def _began(snapshot: Snapshot) -> int:
    return snapshot.times.get("tournament.yaml", 0)


def _line(snapshot: Snapshot, drawn: Lineage | Reference) -> dict[str, str]:
    """The tags of a line in the chart over rounds: MLflow would give colours by the runs' ids, often one twice."""
    colour, _ = style([*snapshot.config.lineages, *snapshot.config.references].index(drawn))
    return {"chart": "rounds", "mlflow.runColor": colour}


def _reference(snapshot: Snapshot, reference: Reference) -> View:
    began, when = _began(snapshot), snapshot.reference_times.get(reference.name)
    card, points = snapshot.references.get(reference.name), list[Point]()
    if reference.published is not None:
        when = began
        points = [Point("test_loss", loss, step, began) for step, loss in enumerate(reference.published)]
    elif when is not None:
        points = [p for step in range(snapshot.config.all_rounds + 1) for p in of_scorecard(card, step, when)]
    settings = [] if reference.model is None else [("model", reference.model), ("prompt", reference.prompt)]
    return View(
        name=reference.name,
        began_ms=began,
        status="FINISHED" if points else "open",
        ended_ms=when if points else None,
        tags=_line(snapshot, reference) | {"published": str(reference.published is not None).lower()},
        note=words.about_reference(reference),
        params=words.parameters(settings),
        points=points,
    )


def _lineage(snapshot: Snapshot, lineage: LineageSnapshot) -> View:
    points = of_lineage(lineage)
    over = has_ended(snapshot.config, lineage.verdicts)
    about = {"lineage": lineage.name, "champion": str(lineage.champion), "rounds_done": str(len(lineage.verdicts))}
    return View(
        name=lineage.name,
        began_ms=_began(snapshot),
        status="FINISHED" if over else "open",
        ended_ms=points[-1].time_ms if over else None,
        tags=_line(snapshot, lineage.lineage) | about,
        note=words.about_lineage(lineage),
        params=words.parameters([("base", lineage.lineage.base)]),
        points=points,
    )


def _round(lineage: LineageSnapshot, one: RoundSnapshot) -> View:
    verdict, tags = one.verdict, {"lineage": lineage.name, "round": str(one.number)}
    when = None if verdict is None else one.times["verdict.json"]
    points: list[Point] = []
    if verdict is not None and when is not None:
        tags |= {
            "winner": verdict.winner or "none",
            "champion": str(verdict.champion),
            "dethroned": str(verdict.dethroned).lower(),
            "seed_next": str(verdict.seed_next),
        }
        points = of_scorecard(lineage.scorecard_of(verdict.champion), one.number, when)
    return View(
        name=f"round {one.number} ({lineage.name})",
        began_ms=one.times["roster.json"],
        status="open" if verdict is None else "FINISHED",
        ended_ms=when,
        tags=tags,
        note=words.about_round(verdict),
        points=points,
        artifacts=[] if verdict is None else [one.folder / "verdict.json"],
    )


def _competitor(snapshot: Snapshot, lineage: LineageSnapshot, one: RoundSnapshot, entry: EntrySnapshot) -> View:
    brief, verdict = entry.brief, one.verdict
    assert brief is not None
    began, newest = entry.times["brief.json"], max(entry.times.values())
    status: Status = "open"
    if entry.state in ("forfeit", "rejected", "scored"):
        status = "FINISHED" if entry.state == "scored" else "FAILED"
    outcome = words.outcome(verdict, entry.name) if verdict else ""
    recipe = entry.entry.recipe.model_dump(mode="json", by_alias=True)
    return View(
        name=entry.name,
        began_ms=began,
        status=status,
        ended_ms=None if status == "open" else newest,
        tags=_entry_tags(lineage, one, entry) | {"seed_sha256": brief.seed_sha256, "outcome": outcome},
        note=words.about_entry(entry.state, entry.reason, outcome),
        params=words.parameters([*flatten(recipe), *words.origins(entry.entry)]),
        points=of_entry(one.number, newest, entry, verdict),
        artifacts=[] if entry.submission is None else [entry.log_file],  # which is whole by then
        datasets=_datasets(snapshot),
        progress=entry.progress_file,
        attempt=began,
        model=_model(snapshot, lineage, one, entry),
    )


def _entry_tags(lineage: LineageSnapshot, one: RoundSnapshot, entry: EntrySnapshot) -> dict[str, str]:
    made = entry.entry
    tags = {"lineage": lineage.name, "round": str(one.number), "competitor": entry.name, "kind": made.recipe.kind}
    if made.recipe.repeat_of:
        tags["repeat_of"] = made.recipe.repeat_of
    if made.origin:
        tags |= {"made_by": made.made_by, "origin": made.origin, "parent": made.parent or ""}
    return tags | {"status": entry.state, "reason": entry.reason}


def _model(snapshot: Snapshot, lineage: LineageSnapshot, one: RoundSnapshot, entry: EntrySnapshot) -> Model | None:
    """The champion that this entry has become, once the round is settled."""
    verdict, champion, card = one.verdict, one.champion, entry.scorecard
    if verdict is None or champion is None or champion.path is None or card is None:
        return None
    if not verdict.dethroned or champion.model != ModelRef(entry.name, one.number):
        return None
    name = snapshot.config.name
    return Model(
        name=f"{name}-{lineage.name}",
        path=champion.path,
        tags={
            "lineage": lineage.name,
            "round": str(one.number),
            "competitor": entry.name,
            "sha256": champion.sha256,
            "test_loss": FIGURES["loss"].text(card.test_figures.get("loss")),
            "validation_loss": f"{card.validation.loss:.6g}",
            "weights": champion.path.as_uri(),
            "tournament.run_dir": str(snapshot.run.root),
            **snapshot.run.identity,
        },
        description=words.about_champion(verdict, card, champion.path),
        about=words.about_champions(name, lineage.lineage),
        model_tags={"tournament": name, "lineage": lineage.name},
    )


def _datasets(snapshot: Snapshot) -> list[Dataset]:
    manifest, run = snapshot.manifest, snapshot.run
    if manifest is None:
        return []
    name = snapshot.config.name
    return [
        Dataset(split, f"{name} {split}", sha256, run.split(split), manifest.counts[split], manifest.source)
        for split, sha256 in manifest.sha256.items()
    ]
