"""What MLflow is to show of a tournament: a tree of runs, derived from the run directory alone.

Each run is a `Part`: a key, the files that it follows from, and how to build its `View` from them. Nothing here
knows MLflow; `tracking_sync.py` sends what is new.

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

from competitors.contract import Brief, Submission
from evaluation.scorecard import Scorecard
from evaluation.splits import Manifest
from orchestrator.config import Lineage, Reference, TournamentConfig, flatten
from orchestrator.record.records import Rejection, Seed
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.verdict import Verdict
from orchestrator.tracking import words
from orchestrator.tracking.points import Point, now_ms, of_entry, of_scorecard, written_ms
from orchestrator.views.charts import COLOURS
from orchestrator.views.leaderboard import Leaderboard, field_of, has_ended, scorecard_of, settled

Status = Literal["open", "FINISHED", "FAILED"]
"""Of a run; `open` is what is still under way, and ends with the tournament."""


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
    datasets: list[Dataset] = field(default_factory=list)
    events: Path | None = None
    attempt: int = 0
    """Which try of an entry `events` belongs to; another one begins its file anew."""
    model: Model | None = None


@dataclass(frozen=True)
class Part:
    """One run of the tree: where it hangs, the files that it follows from, and how to build its view."""

    key: str
    parent: str | None
    level: Literal["tournament", "lineage", "round", "competitor", "reference"]
    sources: tuple[Path, ...]
    build: Callable[[], View]


def parts(config: TournamentConfig, run: RunDirectory, over: set[str]) -> Iterator[Part]:
    """All runs that the record calls for, parents first; without the rounds in `over`, which change no more."""
    files = (run.config_file, run.environment_file, run.leaderboard_file, run.report_file, run.manifest_file)
    yield Part("", None, "tournament", files, partial(_tournament, config, run))
    for reference in config.references:
        card = run.reference(reference.name) / "scorecard.json"
        key = f"reference:{reference.name}"
        yield Part(key, "", "reference", (card,), partial(_reference, config, run, reference))
    for lineage in config.lineages:
        if not run.lineage(lineage.name).is_dir():
            continue
        folders = {number: run.round(lineage.name, number) for number in range(1, config.all_rounds + 1)}
        sources = (run.round(lineage.name, 0) / "scorecard.json", *(f / "verdict.json" for f in folders.values()))
        yield Part(lineage.name, "", "lineage", sources, partial(_lineage, config, run, lineage))
        for number, folder in folders.items():
            if f"{lineage.name}/{number}" not in over and folder.is_dir():
                yield from _round_parts(config, run, lineage.name, number)


def is_over(run: RunDirectory, key: str) -> bool:
    """Whether nothing more is to come from the round of this key."""
    lineage, _, number = key.rpartition("/")
    folder = run.round(lineage, int(number))
    verdict = Verdict.read_if_there(folder / "verdict.json")
    return verdict is not None and (not verdict.dethroned or (folder / "champion.json").exists())


def _round_parts(config: TournamentConfig, run: RunDirectory, lineage: str, number: int) -> Iterator[Part]:
    folder, key = run.round(lineage, number), f"{lineage}/{number}"
    verdict = folder / "verdict.json"
    for brief in (briefs := sorted(folder.glob("*/brief.json"))):
        if brief == briefs[0]:
            yield Part(key, lineage, "round", (verdict,), partial(_round, config, run, lineage, number))
        names = ("brief.json", "progress.jsonl", "submission.json", "rejected.json", "scorecard.json")
        sources = (*(brief.with_name(name) for name in names), verdict, folder / "champion.json")
        build = partial(_competitor, config, run, lineage, number, brief.parent.name)
        yield Part(f"{key}/{brief.parent.name}", key, "competitor", sources, build)


def _tournament(config: TournamentConfig, run: RunDirectory) -> View:
    board = Leaderboard.read_if_there(run.leaderboard_file)
    files = (run.config_file, run.environment_file, run.leaderboard_file, run.report_file)
    return View(
        name=config.name,
        began_ms=written_ms(run.config_file),
        tags={"data": words.joined(config.data.source), "rounds": str(config.all_rounds)},
        note=words.about_tournament(config, run, board),
        params=words.parameters(flatten(_plain(config))),
        artifacts=[file for file in files if file.exists()],
        datasets=_datasets(config, run),
    )


def _line(config: TournamentConfig, drawn: Lineage | Reference) -> dict[str, str]:
    """The tags of a line in the chart over rounds: MLflow would give colours by the runs' ids, often one twice."""
    number = [*config.lineages, *config.references].index(drawn)
    return {"chart": "rounds", "mlflow.runColor": COLOURS[number % len(COLOURS)]}


def _reference(config: TournamentConfig, run: RunDirectory, reference: Reference) -> View:
    tags = _line(config, reference) | {"published": str(reference.published is not None).lower()}
    note, began = words.about_reference(reference), written_ms(run.config_file)
    if reference.published is not None:
        points = [Point("test_loss", loss, step, began) for step, loss in enumerate(reference.published)]
        return View(reference.name, began, "FINISHED", began, tags, note, points=points)
    params = words.parameters([("model", reference.model), ("prompt", reference.prompt)])
    card = Scorecard.read_if_there(path := run.reference(reference.name) / "scorecard.json")
    if card is None:
        return View(reference.name, began, "open", None, tags, note, params)
    when = written_ms(path)
    points = [point for step in range(config.all_rounds + 1) for point in of_scorecard(card, step, when)]
    return View(reference.name, began, "FINISHED", when, tags, note, params, points)


def _lineage(config: TournamentConfig, run: RunDirectory, lineage: Lineage) -> View:
    base = run.round(lineage.name, 0) / "scorecard.json"
    verdicts = settled(config, run, lineage)
    points = of_scorecard(Scorecard.read(base), 0, written_ms(base)) if base.exists() else []
    for verdict in verdicts:
        card = Scorecard.read(scorecard_of(run, lineage.name, verdict.champion))
        when = written_ms(run.round(lineage.name, verdict.round) / "verdict.json")
        points += of_scorecard(card, verdict.round, when)
    over = has_ended(config, verdicts)
    return View(
        name=lineage.name,
        began_ms=written_ms(run.config_file),
        status="FINISHED" if over else "open",
        ended_ms=points[-1].time_ms if over else None,
        tags=_line(config, lineage)
        | {
            "lineage": lineage.name,
            "champion": verdicts[-1].champion if verdicts else "base",
            "rounds_done": str(len(verdicts)),
        },
        note=words.about_lineage(lineage, verdicts),
        params=words.parameters([("base", lineage.base)]),
        points=points,
    )


def _round(config: TournamentConfig, run: RunDirectory, lineage: str, number: int) -> View:
    folder = run.round(lineage, number)
    verdict = Verdict.read_if_there(path := folder / "verdict.json")
    name, tags = f"round {number} ({lineage})", {"lineage": lineage, "round": str(number)}
    began = min((written_ms(brief) for brief in folder.glob("*/brief.json")), default=now_ms())
    if verdict is None:
        return View(name, began, tags=tags, note="Competitors are training; the verdict comes when all are scored.")
    card, when = Scorecard.read(scorecard_of(run, lineage, verdict.champion)), written_ms(path)
    return View(
        name=name,
        began_ms=began,
        status="FINISHED",
        ended_ms=when,
        tags=tags
        | {
            "winner": verdict.winner or "none",
            "champion": verdict.champion,
            "dethroned": str(verdict.dethroned).lower(),
            "seed_next": verdict.seed_next,
        },
        note=words.about_round(verdict),
        points=of_scorecard(card, number, when),
        artifacts=[path],
    )


def _competitor(config: TournamentConfig, run: RunDirectory, lineage: str, number: int, name: str) -> View:
    folder = run.entry(lineage, number, name)
    brief = Brief.read(folder / "brief.json")
    field = field_of(config, run, lineage, number)
    entry = next((entry for entry in field if entry.recipe.name == name), None)
    recipe = entry.recipe if entry else None
    submission = Submission.read_if_there(folder / "submission.json")
    rejection = Rejection.read_if_there(folder / "rejected.json")
    card = Scorecard.read_if_there(folder / "scorecard.json")
    verdict = Verdict.read_if_there(folder.parent / "verdict.json")
    tags = {"lineage": lineage, "round": str(number), "competitor": name, "seed_sha256": brief.seed_sha256}
    if kind := (submission.kind if submission else recipe.kind if recipe else None):
        tags["kind"] = kind
    if entry is not None and entry.origin:
        tags |= {"made_by": entry.made_by, "origin": entry.origin} | ({"parent": entry.parent} if entry.parent else {})
    status, tags["status"], tags["reason"] = _standing(submission, rejection, card)
    if verdict is not None:
        tags["outcome"] = words.outcome(verdict, name)
    ends = [folder / file for file in ("scorecard.json", "rejected.json", "submission.json")]
    ended = next((written_ms(path) for path in ends if path.exists()), now_ms())
    return View(
        name=name,
        began_ms=written_ms(folder / "brief.json"),
        status=status,
        ended_ms=ended if status != "open" else None,
        tags=tags,
        note=words.about_competitor(tags),
        params=words.parameters([*flatten(_plain(recipe)), *words.origins(entry)]) if recipe and entry else {},
        points=of_entry(name, number, ended, submission, card, verdict),
        artifacts=[brief.log_file] if status == "FAILED" and brief.log_file.exists() else [],
        datasets=_datasets(config, run),
        events=brief.progress_file,
        attempt=(folder / "brief.json").stat().st_mtime_ns,
        model=_model(config, run, verdict, name) if verdict else None,
    )


def _standing(
    submission: Submission | None, rejection: Rejection | None, card: Scorecard | None
) -> tuple[Status, str, str]:
    """The run's status, and the entry's in the words of the leaderboard, with the reason."""
    if submission is None:
        return "open", "training", ""
    if submission.status == "forfeit":
        return "FAILED", "forfeit", submission.reason
    if rejection is not None:
        return "FAILED", "rejected", rejection.reason
    return ("open", "scoring", submission.reason) if card is None else ("FINISHED", "scored", submission.reason)


def _model(config: TournamentConfig, run: RunDirectory, verdict: Verdict, name: str) -> Model | None:
    """The champion that this competitor has become, once its folder is there."""
    seed = Seed.read_if_there(run.round(verdict.lineage, verdict.round) / "champion.json")
    if seed is None or not verdict.dethroned or verdict.champion != f"{name}@{verdict.round}":
        return None
    card = Scorecard.read(scorecard_of(run, verdict.lineage, verdict.champion))
    return Model(
        name=f"{config.name}-{verdict.lineage}",
        path=seed.path,
        tags={
            "lineage": verdict.lineage,
            "round": str(verdict.round),
            "competitor": name,
            "sha256": seed.sha256,
            "test_loss": f"{card.test.loss:.6g}",
            "validation_loss": f"{card.validation.loss:.6g}",
            "weights": seed.path.as_uri(),
            "tournament.run_dir": str(run.root),
        },
        description=words.about_champion(verdict, card, seed.path),
        about=words.about_champions(config, verdict.lineage),
        model_tags={"tournament": config.name, "lineage": verdict.lineage},
    )


def _datasets(config: TournamentConfig, run: RunDirectory) -> list[Dataset]:
    manifest = Manifest.read_if_there(run.manifest_file)
    if manifest is None:
        return []
    paths = {split: run.data / f"{split}.parquet" for split in ("train", "slice")}
    paths |= {split: run.held_out / f"{split}.parquet" for split in ("validation", "test")}
    return [
        Dataset(split, f"{config.name} {split}", sha256, paths[split], manifest.counts[split], manifest.source)
        for split, sha256 in manifest.sha256.items()
    ]


def _plain(settings: object) -> object:
    dump = getattr(settings, "model_dump", None)
    return dump(mode="json", by_alias=True) if dump else settings
