"""What a tournament costs, and where it stops for it."""

import time
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from cluster.errors import ClusterTrouble, LimitReached, UserError
from cluster.metered import Accounts, Metered
from competitors.contract import Allowance, Brief
from competitors.events import reporter
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.next_round import first_roster, with_budget
from orchestrator.record.events import Noted, RoundBegan, TournamentEvent
from orchestrator.record.records import Verdict
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot
from orchestrator.record.spent import Spent
from orchestrator.rounds import costs
from orchestrator.rounds.costs import MARGIN_SECONDS, Costs, paces, planned_cost
from tests.faked import FakedWorkers, faked_config, hand_in, play

HOUR = {"minutes": 60}


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


def priced(inputs: Path, limit: float | None, price: float = 1.0, **settings: Any) -> TournamentConfig:
    """Two rounds of two entries of a CPU each."""
    both = {"cluster": {"prices": {"CPU": price}}, "limits": {"cost": limit}}
    return faked_config(inputs, **(both | settings))


def two_lineages(inputs: Path) -> list[dict[str, str]]:
    faked_config(inputs)
    return [{"name": name, "base": str(inputs / "base")} for name in "lm"]


def verdicts(snapshot: Snapshot) -> dict[str, list[Verdict]]:
    return {one.name: one.verdicts for one in snapshot.lineages}


def spent(folder: Path) -> Spent:
    return Spent.read(folder / "spent.json")


def test_a_round_that_would_cost_too_much_is_not_begun_and_the_others_go_on(inputs: Path, tmp_path: Path):
    settings = {"lineages": two_lineages(inputs), "budget": HOUR}
    heard: list[TournamentEvent] = []
    with pytest.raises(LimitReached) as stopped:  # a round of an hour of two CPUs, and room for one of them
        play(priced(inputs, 3.0, **settings), tmp_path / "run", tell=heard.append)
    assert str(stopped.value) == (
        "limits.cost: m round 1 may take 2.00, 0.00 of 3.00 is spent, and 2.00 is for rounds that run:"
        " raise it to go on"
    )
    begun = [(one.roster.lineage, one.roster.round) for one in heard if isinstance(one, RoundBegan)]
    assert begun == [("l", 1), ("l", 2)]
    assert Noted(str(stopped.value)) in heard
    assert not (tmp_path / "run/lineages/m/round-001").exists()
    assert len(list((tmp_path / "run/lineages/l").glob("round-*/verdict.json"))) == 2
    went_on = play(priced(inputs, 4.1, **settings), tmp_path / "run")
    assert went_on.is_finished
    assert verdicts(went_on) == verdicts(play(priced(inputs, None, **settings), tmp_path / "straight"))


def test_what_is_done_of_a_round_costs_nothing_more(inputs: Path, tmp_path: Path):
    def stop_after_a(name: str, args: tuple[Any, ...]) -> None:
        if name == "compete" and args[0].competitor == "b":
            while not (tmp_path / "run/lineages/l/round-001/a/submission.json").exists():
                time.sleep(0.01)
            raise ClusterTrouble("stopped")

    with pytest.raises(ClusterTrouble, match="stopped"):
        play(priced(inputs, 2.1, budget=HOUR), tmp_path / "run", FakedWorkers(fault=stop_after_a))
    file = tmp_path / "run/spent.json"
    before = Spent.read(file)
    before.model_copy(update={"seconds": {"l": {"CPU": 3600.0}}}).write(file)  # as if that had taken its hour
    with pytest.raises(LimitReached, match=r"^limits.cost: l round 2 may take 2.00, 1.00 of 2.10 is spent: raise"):
        play(priced(inputs, 2.1, budget=HOUR), tmp_path / "run")


def test_what_was_spent_stops_everything_and_stays_on_record(
    inputs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(costs, "LOOK_SECONDS", 0.01)
    monkeypatch.setattr(costs, "MARGIN_SECONDS", 0.0)

    def never_ends(brief: Brief) -> None:
        while brief.round:
            time.sleep(0.01)

    config = priced(inputs, 500.0, price=3600 * 1000.0)  # half a second of a CPU
    with pytest.raises(LimitReached, match=r"^limits.cost: [\d.,]+ of 500.00 is spent: raise it to go on$"):
        play(config, tmp_path / "run", FakedWorkers(acts={"a": never_ends}))
    first = spent(tmp_path / "run")
    assert first.cost is not None
    assert first.cost >= 500
    workers = FakedWorkers()
    with pytest.raises(LimitReached):
        play(config, tmp_path / "run", workers)
    assert workers.calls == []
    assert spent(tmp_path / "run") == first
    dearer = priced(inputs, 2 * first.cost + 1e7, price=2 * 3600 * 1000.0)
    assert play(dearer, tmp_path / "run").is_finished
    assert (spent(tmp_path / "run").cost or 0) > 2 * first.cost  # all of it by the new prices


def test_what_was_spent_is_on_record_without_a_limit_and_without_prices(inputs: Path, tmp_path: Path):
    play(faked_config(inputs), tmp_path / "run")
    assert [*spent(tmp_path / "run").seconds["l"]] == ["CPU"]
    assert spent(tmp_path / "run").cost is None
    assert spent(tmp_path / "run").in_words == ""


def test_a_limit_of_what_costs_nothing_here_is_refused(inputs: Path, tmp_path: Path):
    config = priced(inputs, 10.0, cluster={"prices": {"H100": 3.5}})
    with pytest.raises(
        UserError, match=r"^limits\.cost: there is no GPU here, and cluster\.prices has no price for CPU$"
    ):
        play(config, tmp_path / "run")


def test_a_round_is_planned_by_its_minutes_and_by_the_pace_of_those_before(inputs: Path, tmp_path: Path):
    config = faked_config(inputs)
    snapshot = play(config, tmp_path / "run", FakedWorkers(acts={"a": hand_in}))
    made = [one.submission for one in snapshot.lineages[0].rounds[0].entries if one.submission]
    made = [one.model_copy(update={"train_tokens": 100, "train_steps": 10, "device_seconds": 50.0}) for one in made]
    pace = paces(made)
    assert pace == {"tokens": 0.5, "steps": 5.0}
    assert paces([]) == {}

    def planned(done: list[str], known: Any = pace, begun: Any = MappingProxyType({}), **budget: Any) -> float:
        roster = with_budget(first_roster("l", config.competitors, []), Allowance(**budget))
        return planned_cost(roster, done, known, has_gpus=True, prices={"GPU": 2.0}, begun=begun)

    assert planned([], seconds=1800) == 2 * 0.5 * 2.0
    assert planned(["a"], tokens=7200) == 1 * 2.0
    assert planned(["a"], tokens=7200, steps=360) == 0.5 * 2.0
    assert planned(["a"], tokens=7200, seconds=900) == 0.25 * 2.0
    assert planned([], {}, tokens=7200) == 0
    assert planned(["a"], seconds=3600, begun={"b": 1800.0}) == 0.5 * 2.0
    assert planned(["a"], seconds=3600, begun={"b": 4000.0}) == 0.0


@pytest.mark.parametrize(("kind", "goes_on"), [("sft", True), ("python", False)])
def test_what_an_entry_that_goes_on_has_trained_is_not_planned_again(
    inputs: Path, tmp_path: Path, kind: str, goes_on: bool
):
    def dies(brief: Brief) -> None:
        reporter(brief.progress_file)({"event": "step", "step": 1, "tokens": 9, "seconds": 2400.0})
        raise ClusterTrouble("power cut")

    own = {"learning_rate": 1e-3} if kind == "sft" else {"entrypoint": "tests.recipes:writes_nothing"}
    config = priced(inputs, 1.5, budget=HOUR, rounds=1, competitors=[{"name": "a", "kind": kind, **own}])
    with pytest.raises(ClusterTrouble, match="power cut"):
        play(config, tmp_path / "run", FakedWorkers(acts={"a": dies}))
    file = tmp_path / "run/spent.json"
    Spent.read(file).model_copy(update={"seconds": {"l": {"CPU": 2400.0}}}).write(file)
    if goes_on:
        assert play(config, tmp_path / "run").is_finished
    else:
        with pytest.raises(LimitReached, match=r"may take 1\.00, 0\.67 of 1\.50 is spent"):
            play(config, tmp_path / "run")


class Held(Metered):
    """Workers that have been held for so many hours of a CPU by each lineage, and by `l` go on being held."""

    def __init__(self, **hours: float) -> None:
        super().__init__(FakedWorkers())
        self.hours = hours

    def seconds(self, ahead: float = 0.0) -> Accounts:
        return {name: {"CPU": 3600 * hours + ahead * (name == "l")} for name, hours in self.hours.items()}


def test_of_what_runs_only_what_it_may_yet_take_is_set_aside(inputs: Path, tmp_path: Path):
    config, workers = priced(inputs, 4.1, lineages=two_lineages(inputs), budget=HOUR), Held(l=0.0, m=0.0)
    account = Costs(config, RunDirectory(tmp_path), workers)
    one, other = (
        with_budget(first_roster(name, config.competitors, []), config.budget.allowance) for name in ("l", "m")
    )
    account.begin(one, [])  # two hours, of which it takes one and a half
    workers.hours["l"] = 1.5
    account.begin(other, [])
    workers.hours["l"] = 2.2
    with pytest.raises(
        LimitReached, match=r"l round 1 may take 2\.00, 2\.20 of 4\.10 is spent, and 2\.00 is for rounds"
    ):
        account.begin(one, [])


def test_everything_stops_before_the_limit_is_passed(inputs: Path, tmp_path: Path):
    workers = Held(l=2.0 - 1.1 * MARGIN_SECONDS / 3600)
    account = Costs(priced(inputs, 2.0), RunDirectory(tmp_path), workers)
    account.require_left()
    workers.hours["l"] = 2.0 - 0.9 * MARGIN_SECONDS / 3600
    with pytest.raises(LimitReached, match=r"2\.00 of 2\.00 is spent"):
        account.require_left()
