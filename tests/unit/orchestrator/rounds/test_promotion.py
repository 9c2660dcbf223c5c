"""What becomes of a round's models, and which continuations are kept."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Forfeit
from evaluation.results import read_results
from evaluation.scorecard import Scorecard
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.roster import Roster
from orchestrator.record.events import Noted, TournamentEvent
from orchestrator.record.records import ModelFolder
from orchestrator.record.snapshot import Snapshot
from orchestrator.rounds.promotion import Promotion
from tests.faked import FakedWorkers, faked_config, play
from tests.unit.orchestrator.rounds.test_competition import context, seed_of


@pytest.fixture
def played(tmp_path: Path) -> Snapshot:
    return play(faked_config(tmp_path, rounds=1), tmp_path / "run")


def left(snapshot: Snapshot, blends: bool, seed_changes: bool, following: Roster | None = None) -> list[str]:
    """Whose continuations are kept where each entry has left one, and `b` was promoted."""
    verdict = snapshot.lineages[0].verdicts[0]
    if not seed_changes:
        verdict = verdict.model_copy(update={"seed_next": verdict.seed_before})
    folders = [snapshot.run.entry("l", 1, name) / "continuation" for name in ("a", "b")]
    for folder in folders:
        folder.mkdir(exist_ok=True)
    seed = ModelFolder(model=ModelRef("b", 1), path=None, sha256="", continuation=folders[1])
    promotion = Promotion(context(snapshot), seed_of(snapshot), [], blends)
    asyncio.run(promotion.drop_continuations(verdict, following, seed))
    return [folder.parent.name for folder in folders if folder.exists()]


@pytest.mark.parametrize(
    ("blends", "seed_changes", "kept"),
    [(False, True, ["b"]), (True, True, ["b"]), (False, False, ["b"]), (True, False, ["a", "b"])],
)
def test_only_what_the_next_round_goes_on_from_or_may_blend_is_kept(
    played: Snapshot, blends: bool, seed_changes: bool, kept: list[str]
):
    assert left(played, blends, seed_changes) == kept


def test_what_an_entry_of_the_next_round_goes_on_from_is_kept(played: Snapshot):
    first = played.lineages[0].rounds[0].roster
    going_on = first.entries[0].model_copy(update={"continues": ModelRef("a", 1)})
    following = first.model_copy(update={"round": 2, "entries": [going_on]})
    assert left(played, False, True, following) == ["a", "b"]


def test_of_all_entries_only_champions_are_scored_on_the_test_rows(tmp_path: Path):
    """`b` takes the title in round 1, nobody in round 2, where `a` seeds the next round."""
    losses = {
        ("base", 0): 4.0,
        ("a", 1): 3.5,
        ("b", 1): 3.0,
        ("a", 2): 2.9999,
        ("b", 2): 3.2,
        ("a", 3): 3.1,
        ("b", 3): 3.2,
    }
    workers = FakedWorkers(lambda name, number: losses[name.removesuffix(" base") if number else "base", number])
    snapshot = play(faked_config(tmp_path, rounds=3), tmp_path / "run", workers)
    lineage = snapshot.lineages[0]
    assert [str(verdict.champion) for verdict in lineage.verdicts] == ["b@1"] * 3
    assert str(lineage.verdicts[1].seed_next) == "a@2"
    assert workers.calls.count("score_also test") == 1
    for entry in (entry for one in lineage.rounds for entry in one.entries):
        champion = entry is lineage.entry(lineage.champion)
        assert entry.scorecard is not None
        assert (entry.scorecard.test is not None) == champion
        assert (len(read_results(entry.folder / "losses.parquet", "test").nats) > 0) == champion
        assert ("test" in (entry.folder / "losses.parquet").read_bytes().decode("latin-1")) == champion
    assert lineage.scorecard is not None
    assert lineage.scorecard.test is not None


def test_only_winners_that_lead_are_scored_on_the_rows_that_prove(tmp_path: Path):
    losses = {"a": 3.5, "b": 3.0}
    workers = FakedWorkers(lambda name, number: losses.get(name, 4.0) + (0.5 if number == 2 else 0.0))
    lineage = play(faked_config(tmp_path), tmp_path / "run", workers).lineages[0]
    assert workers.calls.count("score_also proof") == 1  # in round 2 nobody leads the champion
    proven = {str(e.scorecard.proof is not None) + e.name for r in lineage.rounds for e in r.entries if e.scorecard}
    assert proven == {"Falsea", "Trueb", "Falseb"}
    first, second = lineage.verdicts
    assert first.proof is not None
    assert (second.proof, second.spent) == (None, first.spent)
    assert "nothing to prove" in " ".join(second.reasons)


def test_a_winner_that_cannot_be_scored_on_the_rows_that_prove_is_out_and_the_next_one_judged(tmp_path: Path):
    def fault(name: str, args: tuple[Any, ...]) -> None:
        if name == "score_also" and args[1] == "proof" and args[0].name == "b@1":
            raise Forfeit("its loss on the proof rows is not finite")

    lineage = play(faked_config(tmp_path, rounds=1), tmp_path / "run", FakedWorkers(fault=fault)).lineages[0]
    assert str(lineage.champion) == "a@1"
    inspection = lineage.rounds[0].entries[1].inspection
    assert inspection is not None
    assert "not finite" in inspection.reason


def test_a_champion_that_cannot_be_scored_on_the_test_rows_reigns_and_is_scored_when_that_can_be_done(tmp_path: Path):
    def fault(name: str, args: tuple[object, ...]) -> None:
        if name == "score_also" and args[1] == "test":
            raise RuntimeError("odd")

    told: list[TournamentEvent] = []
    config = faked_config(tmp_path, rounds=1)
    snapshot = play(config, tmp_path / "run", FakedWorkers(fault=fault), tell=told.append)
    assert str(snapshot.lineages[0].champion) == "b@1"
    assert [event.text for event in told if isinstance(event, Noted) and "has no test loss" in event.text]
    again = play(config, tmp_path / "run")
    card = again.lineages[0].scorecard_of(again.lineages[0].champion)
    assert card is not None
    assert card.test is not None


def test_seed_and_champion_are_whole_folders_of_the_same_model(played: Snapshot):
    folder = played.run.round("l", 1)
    records = [played.run.read(ModelFolder, folder / f"{name}.json") for name in ("seed", "champion")]
    assert [record and record.model for record in records] == [ModelRef("b", 1)] * 2
    assert (folder / "seed" / "config.json").read_text() == (folder / "champion" / "config.json").read_text()


def test_what_is_looked_at_and_promoted_is_compared_with_what_is_on_record(tmp_path: Path):
    """A submission with the champion, and what is made a model with what was scored; `a` seeds round 3."""

    class Hashing(FakedWorkers):
        def _score(self, job: Any, *_: Any) -> Scorecard:
            card = super()._score(job).model_copy(update={"model_sha256": f"of {job.name}"})
            return card.write(job.out / "scorecard.json", store=self.store)

    losses = {("b", 1): 3.0, ("a", 2): 2.9999}
    champions, promoted = dict[Path, Path | None](), dict[str, str]()

    def note(name: str, args: tuple[Any, ...]) -> None:
        if name == "inspect":
            champions[args[0].parent] = args[3]
        if name == "make_full":
            promoted[args[1].parent.name] = args[-1]

    workers = Hashing(lambda name, number: losses.get((name, number), 4.0 if number == 0 else 3.5), fault=note)
    run = play(faked_config(tmp_path, rounds=3), tmp_path / "run", workers).run
    reigns = run.round("l", 1) / "champion"
    assert [champions[run.entry("l", number, "b")] for number in (1, 3)] == [None, reigns]
    assert promoted == {"b": "of b@1", "a": "of a@2"}
