"""The whole loop without Ray: from base to champion, going on after a stop at any moment, and who owns a failure."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import BrokenRecord, ClusterTrouble, Forfeit, UserError
from cluster.store import LocalStore
from cluster.workers import WorkerDied
from competitors.contract import Brief
from competitors.events import reporter
from evaluation.compare import Tail
from orchestrator import tournament
from orchestrator.config.loading import load_config
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.model_ref import ModelRef
from orchestrator.field.spending import level
from orchestrator.record.changes import enter, extend, withdraw
from orchestrator.record.events import ChampionCrowned, EntryChanged, RoundBegan, TournamentEvent, VerdictReached
from orchestrator.record.records import Proof
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot
from orchestrator.rounds import racing
from orchestrator.rounds.proving import prove
from tests.faked import FakedWorkers, allocated, climbing, deadlines_bind, faked_config, falling, hand_in, play
from tests.tiny import tiny_model


@pytest.fixture(scope="session")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


def outcome(snapshot: Snapshot) -> Any:
    """Everything that must not depend on how often a tournament was stopped."""
    return [
        (lineage.name, verdict.model_dump(), [(entry.name, entry.state, entry.reason) for entry in round_.entries])
        for lineage in snapshot.lineages
        for round_ in lineage.settled
        if (verdict := round_.verdict) is not None
    ]


def models(snapshot: Snapshot) -> dict[str, str]:
    """The model folders of the record, by path, and who made what lies there."""
    root = snapshot.run.root
    return {
        str(path.parent.relative_to(root)): path.read_text()
        for name in ("seed", "champion")
        for path in root.rglob(f"{name}/config.json")
    }


def test_from_base_to_champion(inputs: Path, tmp_path: Path):
    heard: list[TournamentEvent] = []
    snapshot = play(faked_config(inputs), tmp_path / "run", tell=heard.append)
    assert snapshot.is_finished
    assert snapshot.lineages[0].champion == ModelRef("b", 2)
    first, second = snapshot.lineages[0].verdicts
    assert (first.champion, first.seed_next, first.champion_before) == (ModelRef("b", 1), ModelRef("b", 1), ModelRef())
    assert second.seed_before == first.seed_next
    states = [e.state for e in heard if isinstance(e, EntryChanged) and e.key == ("l", 1, "a")]
    assert list(dict.fromkeys(states)) == ["queued", "training", "delivered", "inspected", "scored"]
    kinds = [type(e) for e in heard if isinstance(e, RoundBegan | VerdictReached | ChampionCrowned)]
    assert kinds == [RoundBegan, VerdictReached, ChampionCrowned] * 2
    briefs = [entry.brief for round_ in snapshot.lineages[0].rounds for entry in round_.entries]
    assert all(brief is not None and "held_out" not in brief.model_dump_json() for brief in briefs)


def test_a_finished_tournament_does_nothing_again(inputs: Path, tmp_path: Path):
    before = play(faked_config(inputs), tmp_path / "run")
    workers, heard = FakedWorkers(), list[TournamentEvent]()
    after = play(faked_config(inputs), tmp_path / "run", workers, tell=heard.append)
    assert workers.calls == []
    assert [e.again for e in heard if isinstance(e, VerdictReached | ChampionCrowned)] == [True] * 4
    assert outcome(before) == outcome(after)


class Stopped(BaseException):
    """As if the driver had been killed just now."""


class StoppingStore(LocalStore):
    """Counts what is done to the disk, and stops before the operation number `last`, cleaning nothing up."""

    def __init__(self, last: int | None = None) -> None:
        self.count, self.last = 0, last

    def _next(self) -> None:
        self.count += 1
        if self.is_stopped:
            raise Stopped

    @property
    def is_stopped(self) -> bool:
        return self.last is not None and self.count >= self.last

    def move(self, source: Path, destination: Path) -> None:
        self._next()
        super().move(source, destination)

    def remove(self, path: Path) -> None:
        if self.is_stopped:
            return
        if path.exists():
            self._next()
        super().remove(path)


@pytest.fixture(scope="module")
def undisturbed(inputs: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Snapshot, int]:
    """The same tournament without any stop, and how many operations on the disk it took."""
    store = StoppingStore()
    snapshot = play(faked_config(inputs), tmp_path_factory.mktemp("undisturbed") / "run", store=store)
    return snapshot, store.count


@pytest.mark.parametrize(
    ("of", "every"),
    [(faked_config, 2), (allocated, 5), pytest.param(faked_config, 1, marks=pytest.mark.slow)],
    ids=["equal rounds", "a whole budget", "each"],
)
def test_it_goes_on_from_between_any_two_writes(
    inputs: Path, tmp_path: Path, of: Callable[[Path], TournamentConfig], every: int
):
    config, counting = of(inputs), StoppingStore()

    def run(folder: str, store: StoppingStore) -> Snapshot:
        return play(config, tmp_path / folder, FakedWorkers(climbing, store=store), store)

    whole = run("whole", counting)
    assert counting.count > 30
    for last in range(1, counting.count + 1, every):
        with pytest.raises((Stopped, ClusterTrouble)):  # the latter where it was a worker that wrote
            run(str(last), StoppingStore(last))
        again = run(str(last), StoppingStore())
        assert outcome(again) == outcome(whole), f"stopped before operation {last}"
        assert models(again) == models(whole), f"stopped before operation {last}"


def test_it_goes_on_from_any_call_of_a_worker(inputs: Path, tmp_path: Path, undisturbed: tuple[Snapshot, int]):
    whole, _ = undisturbed
    counted = FakedWorkers()
    play(faked_config(inputs), tmp_path / "counted", counted)
    for last in range(1, len(counted.calls) + 1):
        workers = FakedWorkers()

        def stop(name: str, args: tuple[Any, ...], workers: FakedWorkers = workers, last: int = last) -> None:
            if len(workers.calls) >= last:
                raise WorkerDied("the machine is gone", node_lost=True)

        workers.fault = stop
        with pytest.raises(ClusterTrouble):
            play(faked_config(inputs), tmp_path / str(last), workers)
        assert outcome(play(faked_config(inputs), tmp_path / str(last))) == outcome(whole), f"stopped at call {last}"


def test_a_run_that_was_moved_goes_on(inputs: Path, tmp_path: Path, undisturbed: tuple[Snapshot, int]):
    whole, operations = undisturbed
    with pytest.raises((Stopped, ClusterTrouble)):
        play(faked_config(inputs), tmp_path / "here", store=StoppingStore(operations * 2 // 3))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "here").rename(tmp_path / "elsewhere" / "there")
    moved = play(faked_config(inputs), tmp_path / "elsewhere" / "there")
    assert outcome(moved) == outcome(whole)
    texts = [path.read_text() for path in moved.run.root.rglob("*.json")]
    assert not any(str(tmp_path / "here") in text for text in texts)


def test_a_whole_budget_is_raced_for_climbs_and_goes_into_one_line(inputs: Path, tmp_path: Path):
    snapshot = play(allocated(inputs), tmp_path / "run", FakedWorkers(climbing))
    lineage = snapshot.lineages[0]
    assert [one.roster.phase for one in lineage.rounds] == ["race", "climb", "line", "line"]
    assert [v.seed_next for v in lineage.verdicts] == [
        ModelRef("a", 1), ModelRef("a.2b", 2), ModelRef("a.2b", 3), ModelRef("a.2b", 4)
    ]  # fmt: skip
    assert lineage.champion == ModelRef("a.2b", 4)
    handed_in = {
        name: json.loads(path.read_text())
        for name in ("a.2b", "a.2c")
        for path in sorted(snapshot.run.lineage("l").glob(f"*/{name}/submission/config.json"))
    }
    assert handed_in["a.2c"]["after"] == "a in round-001"
    assert handed_in["a.2b"]["after"] == "a.2b in round-003"
    base = {entry.brief.seed_sha256 for one in lineage.rounds for entry in one.entries if entry.brief}
    assert len(base) == 1, "what goes on stands on what its forebear stood on"
    spent = [e.submission.train_tokens for one in lineage.rounds for e in one.entries if e.submission]
    assert 99_990 < sum(spent) <= 100_000
    kept = sorted(str(path.parent.parent.name) for path in snapshot.run.root.rglob("continuation.json"))
    assert kept == ["a.2b"]


def test_short_data_ends_in_a_soup_of_several_lines(inputs: Path, tmp_path: Path):
    def loss(name: str, number: int) -> float:
        return climbing(name, number) - (1.0 if name == "soup-of-3" else 0.0)

    config = allocated(inputs, rounds=5, allocation={})
    snapshot = play(config, tmp_path / "run", FakedWorkers(loss))
    lineage = snapshot.lineages[0]
    assert [one.roster.phase for one in lineage.rounds] == ["race", "climb", "lines", "lines", "soup"]
    assert snapshot.is_finished
    assert lineage.champion == ModelRef("soup-of-3", 5)
    soup = lineage.entry(lineage.champion)
    assert soup is not None
    assert soup.brief is not None
    assert len(soup.brief.ingredients) == 3
    assert {one.seed_sha256 for one in soup.brief.ingredients} == {soup.brief.seed_sha256}
    orders = [e.brief.random_seed for one in lineage.rounds[2:4] for e in one.entries if e.brief]
    assert len(set(orders)) == len(orders) == 8


def test_a_line_that_fails_for_a_round_goes_on_from_where_it_was(inputs: Path, tmp_path: Path):
    def fails_once(brief: Brief) -> None:
        if brief.round == 3:
            raise Forfeit("lost its way")
        hand_in(brief)

    workers = FakedWorkers(climbing, acts={"a.2b": fails_once})
    lineage = play(allocated(inputs), tmp_path / "run", workers).lineages[0]
    assert lineage.verdicts[2].seed_next == ModelRef("a.2b", 2)
    last = lineage.rounds[3].roster.entries[0]
    assert (last.continues, last.span) == (ModelRef("a.2b", 2), (0.0, 1.0))


def test_a_line_takes_the_cluster_and_waits_for_one_that_can_hold_it(inputs: Path, tmp_path: Path):
    def lost(name: str, args: tuple[Any, ...]) -> None:
        if name == "compete" and args[0].round == 3:
            raise WorkerDied("the machine is gone", node_lost=True)

    config = allocated(inputs, allocation={"several_lines": False, "workers": 4, "step_tokens": 60})
    with pytest.raises(ClusterTrouble):
        play(config, tmp_path / "run", FakedWorkers(climbing, fault=lost, room=4))
    with pytest.raises(ClusterTrouble, match="asks for 4 workers of 1 CPU each, which this cluster can never hold"):
        play(config, tmp_path / "run", FakedWorkers(climbing, room=2, cpus=2))
    lineage = play(config, tmp_path / "run", FakedWorkers(climbing, room=2)).lineages[0]
    assert lineage.champion == ModelRef("a.2b", 4)
    held = [{e.brief.resources.workers for e in one.entries if e.brief} for one in lineage.rounds]
    assert held == [{1}, {1}, {4}, {2}]  # a round that is on record stays as it is


@pytest.mark.parametrize("change", [lambda run: extend(run, 1), lambda run: withdraw(run, "a")])
def test_a_whole_budget_leaves_nothing_for_later_changes(
    inputs: Path, tmp_path: Path, change: Callable[[RunDirectory], object]
):
    snapshot = play(allocated(inputs), tmp_path / "run", FakedWorkers(climbing))
    with pytest.raises(UserError, match="its whole budget is shared out"):
        change(snapshot.run)


def test_a_whole_budget_in_equal_rounds(inputs: Path, tmp_path: Path):
    config = faked_config(inputs, budget={"total_tokens": 4001}, allocation={"kind": "equal"})
    lineage = play(config, tmp_path / "run").lineages[0]
    assert [[e.budget and e.budget.tokens for e in one.roster.entries] for one in lineage.rounds] == [[1000, 1000]] * 2


def test_gpu_hours_want_gpus(inputs: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"budget.total_gpu_hours: there is no GPU here"):
        play(allocated(inputs, budget={"total_gpu_hours": 1}), tmp_path / "run")


def test_what_an_evaluator_fails_on_is_rejected_and_never_stops_the_tournament(inputs: Path, tmp_path: Path):
    def breaks_on_b(name: str, args: tuple[Any, ...]) -> None:
        if name in ("score", "inspect") and "b" in (getattr(args[0], "name", "").partition("@")[0], args[0]):
            raise WorkerDied("was ended by SIGSEGV")

    snapshot = play(faked_config(inputs), tmp_path / "run", FakedWorkers(fault=breaks_on_b))
    assert snapshot.is_finished
    entry = snapshot.lineages[0].rounds[0].entry("b")
    assert entry is not None
    assert entry.state == "rejected"
    assert "fails on it, and not on its seed: was ended by SIGSEGV" in entry.reason
    assert snapshot.lineages[0].champion == ModelRef("a", 2)
    assert not list(snapshot.run.root.rglob("seed-check"))


def test_an_evaluator_that_fails_on_everything_stops_the_tournament_and_costs_nobody_a_round(
    inputs: Path, tmp_path: Path, undisturbed: tuple[Snapshot, int]
):
    def breaks(name: str, args: tuple[Any, ...]) -> None:
        if name in ("score", "score_model") and "base" not in args[0].name:
            raise OSError(28, "No space left on device")

    with pytest.raises(ClusterTrouble, match="No space left"):
        play(faked_config(inputs), tmp_path / "run", FakedWorkers(fault=breaks))
    assert outcome(play(faked_config(inputs), tmp_path / "run")) == outcome(undisturbed[0])


def test_a_score_that_is_not_finite_is_a_rejection_also_after_a_stop(inputs: Path, tmp_path: Path):
    def not_finite(name: str, args: tuple[Any, ...]) -> None:
        if name == "score" and args[0].name.startswith("b@"):
            raise Forfeit("its loss on the test rows is not finite")

    first = play(faked_config(inputs, rounds=1), tmp_path / "run", FakedWorkers(fault=not_finite))
    verdict = first.run.round("l", 1) / "verdict.json"
    verdict.unlink()
    again = play(faked_config(inputs, rounds=1), tmp_path / "run")
    entry = again.lineages[0].rounds[0].entry("b")
    assert entry is not None
    assert (entry.state, entry.reason) == ("rejected", "its loss on the test rows is not finite")


def test_a_winner_that_cannot_be_promoted_is_rejected_and_the_next_one_wins(inputs: Path, tmp_path: Path):
    def cannot_merge(name: str, args: tuple[Any, ...]) -> None:
        if name == "make_full" and args[1].parent.name == "b":
            raise ValueError("this adapter cannot be merged")

    snapshot = play(faked_config(inputs, rounds=1), tmp_path / "run", FakedWorkers(fault=cannot_merge))
    verdict = snapshot.lineages[0].verdicts[0]
    assert (verdict.winner, verdict.champion) == ("a", ModelRef("a", 1))
    assert verdict.ranking == ["a"]
    entry = snapshot.lineages[0].rounds[0].entry("b")
    assert entry is not None
    assert entry.state == "rejected"
    assert "this adapter cannot be merged" in entry.reason


def test_a_settled_model_that_is_gone_and_cannot_be_made_again_is_said_and_loses_nothing(inputs: Path, tmp_path: Path):
    first = play(faked_config(inputs), tmp_path / "run")
    folder = first.run.round("l", 2)
    (folder / "seed.json").unlink()

    def cannot(name: str, args: tuple[Any, ...]) -> None:
        if name == "make_full":
            raise Forfeit("holds no weights")

    with pytest.raises(BrokenRecord, match=r"verdict\.json: a model that it names is gone, and b: .*holds no weights"):
        play(faked_config(inputs), tmp_path / "run", FakedWorkers(fault=cannot))
    assert outcome(play(faked_config(inputs), tmp_path / "run")) == outcome(first)


def test_a_winner_whose_rows_are_damaged_wins_again_once_they_are_removed_as_it_says(inputs: Path, tmp_path: Path):
    first = play(faked_config(inputs), tmp_path / "run")
    (first.run.round("l", 2) / "verdict.json").unlink()
    scores = first.run.entry("l", 2, "b")
    cut_off(scores / "losses.parquet")
    with pytest.raises(BrokenRecord, match=r"losses\.parquet: cannot be read.* remove the scorecard\.json beside it"):
        play(faked_config(inputs), tmp_path / "run")
    (scores / "scorecard.json").unlink()
    assert outcome(play(faked_config(inputs), tmp_path / "run")) == outcome(first)


@pytest.mark.parametrize("damaged", ["scorecard.json", "losses.parquet"])
def test_a_champion_whose_scores_are_damaged_proves_itself_again(inputs: Path, tmp_path: Path, damaged: str):
    whole = play(faked_config(inputs), tmp_path / "whole")
    first = play(faked_config(inputs, rounds=1), tmp_path / "run")
    extend(first.run, 1)
    scores = first.run.scores("l", first.lineages[0].champion)
    cut_off(scores / damaged)
    with pytest.raises(BrokenRecord, match=f"{damaged}: .* remove"):
        play(faked_config(inputs, rounds=1), tmp_path / "run")
    (scores / "scorecard.json").unlink()
    again = play(faked_config(inputs, rounds=1), tmp_path / "run")
    assert again.lineages[0].champion == whole.lineages[0].champion
    assert again.lineages[0].verdicts[1].proof is not None


def test_a_base_that_was_changed_between_two_starts_is_refused(tmp_path: Path):
    first = play(faked_config(tmp_path, rounds=1), tmp_path / "run")
    extend(first.run, 1)
    (tmp_path / "base" / "config.json").touch()
    play(faked_config(tmp_path, rounds=1), tmp_path / "run")
    tiny_model(tmp_path / "base", seed=1)
    extend(first.run, 1)
    with pytest.raises(UserError, match=r"lineages\[l\]\.base: .* is another model than the one that"):
        play(faked_config(tmp_path, rounds=1), tmp_path / "run")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def test_a_trainer_that_dies_once_is_tried_again(inputs: Path, tmp_path: Path):
    attempts: list[int] = []

    def dies_once(brief: Brief) -> None:
        attempts.append(brief.attempt)
        hand_in(brief)
        if brief.attempt == 1:
            raise WorkerDied("was ended by SIGKILL")

    snapshot = play(faked_config(inputs, rounds=1), tmp_path / "run", FakedWorkers(acts={"a": dies_once}))
    assert attempts == [1, 2]
    tried_twice, at_once = snapshot.lineages[0].rounds[0].entries
    assert tried_twice.submission is not None
    assert at_once.submission is not None
    assert tried_twice.submission.wall_seconds > at_once.submission.wall_seconds == 0  # the lost try counts too
    assert [entry.state for entry in snapshot.lineages[0].rounds[0].entries] == ["scored", "scored"]


def test_one_that_always_dies_submits_its_last_checkpoint_or_forfeits_and_says_how(inputs: Path, tmp_path: Path):
    def dies(brief: Brief) -> None:
        raise WorkerDied("was ended by SIGKILL")

    def dies_with_a_checkpoint(brief: Brief) -> None:
        checkpoint = brief.output_dir / "checkpoint-3"
        checkpoint.mkdir(parents=True, exist_ok=True)
        (checkpoint / "config.json").write_text("{}")
        (checkpoint / "model.safetensors").write_bytes(b"")
        raise WorkerDied("was ended by SIGKILL")

    workers = FakedWorkers(acts={"a": dies, "b": dies_with_a_checkpoint})
    a, b = play(faked_config(inputs, rounds=1), tmp_path / "run", workers).lineages[0].rounds[0].entries
    assert (a.state, a.reason) == ("forfeit", "was ended by SIGKILL (3 times), and left no valid model")
    assert (b.state, b.reason) == ("scored", "was ended by SIGKILL (3 times)")


def test_a_node_that_is_lost_again_and_again_is_no_forfeit(
    inputs: Path, tmp_path: Path, undisturbed: tuple[Snapshot, int]
):
    def loses_its_node(brief: Brief) -> None:
        raise WorkerDied("its node is gone", node_lost=True)

    with pytest.raises(ClusterTrouble, match="its node is gone"):
        play(faked_config(inputs), tmp_path / "run", FakedWorkers(acts={"a": loses_its_node}))
    assert outcome(play(faked_config(inputs), tmp_path / "run")) == outcome(undisturbed[0])


def test_what_hangs_is_ended_wherever_it_hangs(inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    class BoundOnB(FakedWorkers):
        """Whatever else is scored may take its time."""

        async def call(self, shape: Any, function: Any, *args: Any, **settings: Any) -> Any:
            if function.__name__ != "score" or not args[0].name.startswith("b@"):
                settings["deadline_seconds"] = None
            return await super().call(shape, function, *args, **settings)

    def hangs(*_: Any) -> None:
        while True:
            time.sleep(0.01)

    def scoring_hangs_on_b(name: str, args: tuple[Any, ...]) -> None:
        if name == "score" and args[0].name.startswith("b@"):
            hangs()

    config = faked_config(
        inputs, rounds=1, limits={"startup_minutes": 0.005, "evaluation_minutes": 0.01},
        competitors=[
            {"name": name, "kind": "python", "entrypoint": "tests.recipes:writes_nothing"}
            for name in ("a", "b", "c")
        ],
    )  # fmt: skip
    deadlines_bind(monkeypatch, "a")
    workers = BoundOnB(acts={"a": hangs}, fault=scoring_hangs_on_b)
    a, b, c = play(config, tmp_path / "run", workers).lineages[0].rounds[0].entries
    assert a.state == "forfeit"
    assert "had not begun training" in a.reason
    assert b.state == "rejected"
    assert "had not ended after 0.6 s" in b.reason
    assert c.state == "scored"


def test_a_run_with_changes_is_repeated_from_its_own_config(inputs: Path, tmp_path: Path):
    config = faked_config(inputs, evolution={"replace": 0.5}, competitors=[
        {"name": name, "kind": "sft", "learning_rate": rate} for name, rate in (("a", 1e-3), ("b", 2e-3), ("c", 3e-3))
    ])  # fmt: skip
    play(config, tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    extend(run, 1)
    withdraw(run, "b")
    enter(run, [config.competitors[0].model_copy(update={"name": "late"})])
    whole = play(config, tmp_path / "run")
    fields = [[entry.name for entry in round_.entries] for round_ in whole.lineages[0].rounds]
    assert len(fields) == 3
    assert "late" in fields[2]
    assert "b" not in fields[2]
    again = play(load_config(run.config_file), tmp_path / "again")
    assert outcome(again) == outcome(whole)
    assert [[entry.name for entry in round_.entries] for round_ in again.lineages[0].rounds] == fields


def test_a_race_stops_the_worst_whether_it_listens_or_not(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(racing, "STOP_SECONDS", 0.2)
    scored: list[str] = []

    def checkpoint(brief: Brief, after: int) -> None:
        """At the rung, once so many others have been scored there."""
        reporter(brief.progress_file)({"event": "started"})
        while len(scored) < after:
            time.sleep(0.01)
        folder = brief.output_dir / "checkpoint-1"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
        reporter(brief.progress_file)({"event": "checkpoint", "fraction": 0.5, "folder": folder.name})
        while len(scored) <= after:
            time.sleep(0.01)

    def well(brief: Brief) -> None:
        checkpoint(brief, 0)
        hand_in(brief)

    def badly(brief: Brief) -> None:
        checkpoint(brief, 1)
        while not brief.stop_file.exists():
            time.sleep(0.01)
        raise Forfeit(brief.stop_file.read_text())

    def deaf(brief: Brief) -> None:
        checkpoint(brief, 2)
        while True:
            time.sleep(0.01)

    def dies(brief: Brief) -> None:
        """Before it looks whether it should stop. Another try would be past the rung."""
        checkpoint(brief, 3)
        while not brief.stop_file.exists():
            time.sleep(0.01)
        raise WorkerDied("was ended by SIGKILL")

    def scores(name: str, args: tuple[Any, ...]) -> None:
        if name == "score_checkpoint":
            scored.append(args[0].name)

    workers = FakedWorkers(
        loss_of=lambda name, number: {"a": 1.0, "b": 2.0, "c": 3.0, "d": 3.5}.get(name, 4.0),
        acts={"a": well, "b": badly, "c": deaf, "d": dies},
        fault=scores,
    )
    config = faked_config(inputs, rounds=1, racing={"at": [0.5], "keep": 0.3, "rows": 30}, competitors=[
        {"name": name, "kind": "python", "entrypoint": "tests.recipes:writes_nothing"} for name in "abcd"
    ])  # fmt: skip
    a, b, c, d = play(config, tmp_path / "run", workers).lineages[0].rounds[0].entries
    assert scored == ["a@1", "b@1", "c@1", "d@1"]
    assert a.state == "scored"
    for entry in (b, c, d):
        assert entry.state == "forfeit"
        assert entry.reason.startswith("stopped by racing at 50% of its budget: ")
        assert "on at most 30 validation rows, place " in entry.reason


def test_a_race_that_was_stopped_goes_on_with_how_everybody_stood(inputs: Path, tmp_path: Path):
    """b is worse than a, who had ended before the driver was stopped: alone at its rung it would go on."""
    scored: list[str] = []

    def at_the_rung(brief: Brief) -> None:
        reporter(brief.progress_file)({"event": "started"})
        folder = brief.output_dir / "checkpoint-1"
        folder.mkdir(parents=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_bytes(b"")
        reporter(brief.progress_file)({"event": "checkpoint", "fraction": 0.5, "folder": folder.name})
        while f"{brief.competitor}@1" not in scored:
            time.sleep(0.01)

    def well(brief: Brief) -> None:
        at_the_rung(brief)
        hand_in(brief)

    def is_lost(brief: Brief) -> None:
        while not (brief.output_dir.parents[1] / "a/submission.json").exists():
            time.sleep(0.01)
        raise WorkerDied("the machine is gone", node_lost=True)

    def badly(brief: Brief) -> None:
        at_the_rung(brief)
        deadline = time.monotonic() + 5
        while not brief.stop_file.exists():
            if time.monotonic() > deadline:
                return hand_in(brief)
            time.sleep(0.01)
        raise Forfeit(brief.stop_file.read_text())

    def fault(name: str, args: tuple[Any, ...]) -> None:
        if name == "score_checkpoint":
            scored.append(args[0].name)

    def workers(b: Callable[[Brief], None]) -> FakedWorkers:
        return FakedWorkers(lambda name, number: {"a": 1.0, "b": 2.0}.get(name, 4.0), {"a": well, "b": b}, fault)

    config = faked_config(inputs, rounds=1, racing={"at": [0.5], "keep": 0.5, "rows": 30}, competitors=[
        {"name": name, "kind": "python", "entrypoint": "tests.recipes:writes_nothing"} for name in "ab"
    ])  # fmt: skip
    with pytest.raises(ClusterTrouble):
        play(config, tmp_path / "run", workers(is_lost))
    assert scored == ["a@1"]
    a, b = play(config, tmp_path / "run", workers(badly)).lineages[0].rounds[0].entries
    assert (a.state, b.state) == ("scored", "forfeit")
    assert b.reason.startswith("stopped by racing at 50% of its budget: ")
    assert b.reason.endswith("place 2 of the 2 that got there")


def test_when_all_forfeit_the_base_stays(inputs: Path, tmp_path: Path):
    def gives_up(brief: Brief) -> None:
        raise Forfeit("does not want to")

    snapshot = play(faked_config(inputs), tmp_path / "run", FakedWorkers(acts={"a": gives_up, "b": gives_up}))
    assert snapshot.lineages[0].champion == ModelRef()
    assert (snapshot.run.round("l", 2) / "seed" / "model.safetensors").is_file()


def test_samples_that_fail_are_said_and_stop_nothing(inputs: Path, tmp_path: Path):
    def cannot_write(name: str, args: tuple[Any, ...]) -> None:
        if name == "generate" and "round-000" not in str(args[0]) and args[0].name != "base":
            raise RuntimeError("no words")

    snapshot = play(faked_config(inputs, rounds=1), tmp_path / "run", FakedWorkers(fault=cannot_write))
    samples = snapshot.lineages[0].rounds[0].samples
    assert samples is not None
    assert samples.samples == []
    assert "no words" in samples.reason


def test_tied_losses_and_falling_ones_are_told_apart(inputs: Path, tmp_path: Path):
    """The base stays champion where nobody is better, and seeds again."""
    workers = FakedWorkers(loss_of=lambda name, number: falling(name, 0) + number)
    verdict = play(faked_config(inputs, rounds=1), tmp_path / "run", workers).lineages[0].verdicts[0]
    assert (verdict.dethroned, verdict.seed_next, verdict.champion) == (False, ModelRef(), ModelRef())


def test_a_small_field_is_judged_with_what_was_entered_before_it(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    asked: list[list[Tail]] = []

    def proved(*args: Any) -> Proof:
        asked.append(list(args[-1]))
        return prove(*args)

    monkeypatch.setattr(tournament, "prove", proved)
    snapshot = play(faked_config(inputs, rounds=3), tmp_path / "run")
    first, second, _ = ([one.tail for one in v.entries] for v in snapshot.lineages[0].verdicts)
    assert all(one.skewness and one.worst for one in first + second)
    assert asked == [[], first, [*second, *first]]


def test_what_may_change_is_on_record_as_it_was_last_started(inputs: Path, tmp_path: Path):
    def lost(brief: Brief) -> None:
        raise WorkerDied("the node is gone", node_lost=True)

    config = faked_config(inputs, tracking={"uri": "http://old:5000"})
    with pytest.raises(ClusterTrouble):
        play(config, tmp_path / "run", FakedWorkers(acts={"a": lost}))
    field = [recipe.model_dump(by_alias=True) for recipe in config.competitors]
    field[0]["resources"]["memory_gb"] = 4
    news = {"tracking": {"uri": "http://new:5000"}, "limits": {"grace_minutes": 7}, "competitors": field}
    snapshot = play(faked_config(inputs, **news), tmp_path / "run")
    assert snapshot.config.tracking.uri == "http://new:5000"
    assert snapshot.config.limits.grace_minutes == 7
    memory = [
        {entry.name: entry.brief.resources.memory_gb for entry in one.entries if entry.brief}
        for one in snapshot.lineages[0].rounds
    ]
    assert memory[0]["a"] == 4, "in the round that was stopped over it too"
    assert memory[1] == {"a": 4, "b": None}
    extend(snapshot.run, 1)
    assert play(config, tmp_path / "run").config.all_rounds == 3, "changes stay"


def test_who_was_withdrawn_and_what_was_scored_need_not_be_possible_any_more(inputs: Path, tmp_path: Path):
    tiny_model(tmp_path / "reference")
    field = [
        {"name": name, "kind": "sft", "learning_rate": 1e-3, "resources": {"cpus": cpus}}
        for name, cpus in (("a", 1), ("b", 8))
    ]
    references = [{"name": "r", "model": str(tmp_path / "reference")}]
    config = faked_config(inputs, rounds=1, competitors=field, references=references)
    run = play(config, tmp_path / "run", FakedWorkers(cpus=8)).run
    shutil.rmtree(tmp_path / "reference")
    extend(run, 1)
    with pytest.raises(ClusterTrouble, match="8"):
        play(config, tmp_path / "run", FakedWorkers(cpus=4))
    withdraw(run, "b")
    assert play(config, tmp_path / "run", FakedWorkers(cpus=4)).is_finished


def test_what_was_spent_of_the_chance_to_err_is_gone_for_the_rounds_that_follow(inputs: Path, tmp_path: Path):
    """`a` leads in round 1, by nothing that could be proved."""
    losses = {("a", 1): 3.9999, ("a", 2): 3.0}
    workers = FakedWorkers(lambda name, number: losses.get((name, number), 4.0 if number == 0 else 4.5))
    first, second = play(faked_config(inputs), tmp_path / "run", workers).lineages[0].verdicts
    assert first.proof is not None
    assert second.proof is not None
    assert (first.dethroned, second.dethroned) == (False, True)
    assert first.spent == first.proof.level > 0
    assert second.proof.level == pytest.approx(level(0.05, [2, 2], first.spent))


@pytest.mark.parametrize("racing", [{"at": [0.5]}, None])
def test_who_races_starts_anew_with_another_driver(inputs: Path, tmp_path: Path, racing: Any):
    attempts: list[int] = []

    def ends_the_driver(brief: Brief) -> None:
        raise WorkerDied("the machine is gone", node_lost=True)

    def tells(brief: Brief) -> None:
        attempts.append(brief.attempt)
        hand_in(brief)

    field = [{"name": "a", "kind": "sft", "learning_rate": 1e-3}]
    config = faked_config(inputs, rounds=1, competitors=field, racing=racing)
    with pytest.raises(ClusterTrouble):
        play(config, tmp_path / "run", FakedWorkers(acts={"a": ends_the_driver}))
    brief = Brief.read(tmp_path / "run/lineages/l/round-001/a/brief.json")
    play(config, tmp_path / "run", FakedWorkers(acts={"a": tells}))
    assert attempts == [1 if racing else brief.attempt + 1]


def test_what_a_killed_driver_was_writing_is_swept_when_it_goes_on(inputs: Path, tmp_path: Path):
    run = play(faked_config(inputs, rounds=1), tmp_path / "run").run
    half = run.round("l", 1) / ".seed.0a1b2c3d.tmp"
    half.mkdir()
    play(faked_config(inputs, rounds=1), tmp_path / "run")
    assert not half.exists()
