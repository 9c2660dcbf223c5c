"""A tournament kept in an object store: it ends as one on a disk does, wherever and whenever its driver was lost."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cluster.bucket import staged_workers, staging, tree, working_copy
from cluster.bucket.object_store import ObjectStore
from cluster.bucket.staged_workers import StagedWorkers
from cluster.bucket.working_copy import WorkingCopy, bring
from competitors.contract import Brief
from orchestrator.cli import app
from orchestrator.config.tournament import TournamentConfig
from orchestrator.driver import run_tournament
from orchestrator.record.events import TournamentEvent
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot
from tests.faked import FakedWorkers, allocated, climbing, faked_config, hand_in, play
from tests.stopping import Stopped, models, outcome


class StoppingObjectStore(ObjectStore):
    """Its writer is lost with its create number `last`, before it or after it has landed."""

    def __init__(self, url: str, last: int | None = None, *, landed: bool = False) -> None:
        super().__init__(url)
        self.count, self.last, self.landed = 0, last, landed

    def create(self, key: str, data: bytes, mark: str | None = None) -> bool:
        self.count += 1
        is_over = self.last is not None and self.count >= self.last
        if is_over and not (self.landed and self.count == self.last):
            raise Stopped
        created = super().create(key, data, mark)
        if is_over:
            raise Stopped
        return created


@pytest.fixture(scope="module")
def inputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("inputs")


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tree, "SMALL_BYTES", 500)
    monkeypatch.setattr(working_copy, "BEAT_SECONDS", 0.02)
    for module in (staging, staged_workers):
        monkeypatch.setattr(module, "FOLLOW_SECONDS", 0.05)
    monkeypatch.setenv("TOURNAMENT_CACHE", str(tmp_path / "cache"))


def play_stored(config: TournamentConfig, folder: Path, store: ObjectStore) -> Snapshot:
    """Run it in `folder`, a working copy of what is in `store`; one that is lost says nothing to anybody."""
    copy = WorkingCopy(folder, store).open()
    try:
        snapshot = play(config, folder, StagedWorkers(FakedWorkers(climbing), copy), copy)
        copy.close()
    finally:
        copy._stop_beating()
    return snapshot


@pytest.mark.parametrize("times", [2, pytest.param(30, marks=pytest.mark.slow)])
@pytest.mark.parametrize("of", [faked_config, allocated], ids=["equal rounds", "a whole budget"])
def test_it_goes_on_elsewhere_after_any_loss(
    inputs: Path, tmp_path: Path, of: Callable[..., TournamentConfig], times: int
):
    config = of(inputs, cluster={"storage": "s3://somewhere"})
    plain = play(of(inputs), tmp_path / "plain" / "run", FakedWorkers(climbing))

    def run(store: str, folder: str, last: int | None = None, *, landed: bool = False) -> tuple[Snapshot, int]:
        (tmp_path / store).mkdir(exist_ok=True)
        counting = StoppingObjectStore(f"file://{tmp_path / store}", last, landed=landed)
        return play_stored(config, tmp_path / folder / "run", counting), counting.count

    whole, count = run("whole", "whole copy")
    assert outcome(whole) == outcome(plain)
    assert count > 30
    for last in range(count // times // 2, count, count // times):
        landed = last // (count // times) % 2 == 0
        with pytest.raises(Stopped):
            run(f"store {last}", f"lost {last}", last, landed=landed)
        again, _ = run(f"store {last}", f"again {last}")
        assert outcome(again) == outcome(whole), f"lost at change {last}, landed: {landed}"
        assert models(again) == models(whole), f"lost at change {last}, landed: {landed}"


def test_an_entry_s_log_is_on_record_as_it_was_left(inputs: Path, tmp_path: Path):
    """Plain, without passwords in addresses, and with how the entry ended."""

    def talkative(brief: Brief) -> None:
        brief.log_file.write_text("\x1b[31mred\x1b[0m at postgresql://me:tops3cret@db/mlflow\n")
        hand_in(brief)

    (tmp_path / "store").mkdir()
    store = ObjectStore(f"file://{tmp_path}/store")
    copy = WorkingCopy(tmp_path / "run", store).open()
    config = faked_config(inputs, rounds=1, cluster={"storage": "s3://somewhere"})
    play(config, tmp_path / "run", StagedWorkers(FakedWorkers(acts={"a": talkative}), copy), copy)
    copy.close()
    bring(store.url, tmp_path / "fetched")
    logs = [folder / "lineages/l/round-001/a/log.txt" for folder in (tmp_path / "run", tmp_path / "fetched")]
    here, there = (log.read_text() for log in logs)
    assert there == here
    assert there.startswith("red at postgresql://…@db/mlflow\n")
    assert there.endswith("delivered: used its budget\n")


def test_what_is_asked_for_elsewhere_is_taken_in_before_the_next_round(inputs: Path, tmp_path: Path):
    """By whoever drives it: while it runs, after it was lost, and when it has ended."""
    (tmp_path / "store").mkdir()
    url = f"file://{tmp_path}/store"
    (tmp_path / "late.yaml").write_text("{name: late, like: a}")
    (tmp_path / "later.yaml").write_text("{name: later, like: late}")

    def asks(*command: str) -> str:
        result = CliRunner().invoke(app, [command[0], url, *command[1:]])
        assert result.exit_code == 0, result.output
        return result.output

    def asking(brief: Brief) -> None:
        if brief.round == 1:
            asks("enter", str(tmp_path / "late.yaml"))
            # What was asked for and is not yet taken in counts already.
            said = asks("enter", str(tmp_path / "later.yaml"))
            assert said == "later: enters in round 2, or whichever begins next: it is asked for in the store\n"
            asks("withdraw", "b")
            assert str(CliRunner().invoke(app, ["withdraw", url, "b"]).exception).startswith(f"{url}: no competitor")
            ObjectStore(url).create("asked/00000004", b'{"extnd": 1}')
        hand_in(brief)

    config = faked_config(inputs, rounds=2, cluster={"storage": "s3://somewhere"})
    said: list[str] = []

    def run(folder: str, workers: FakedWorkers) -> Snapshot:
        copy = WorkingCopy(tmp_path / folder / "run", ObjectStore(url)).open()
        snapshot = play(config, copy.root, StagedWorkers(workers, copy), copy, lambda event: said.append(str(event)))
        copy.close()
        return snapshot

    first = run("here", FakedWorkers(climbing, acts={"a": asking}))
    names = [[entry.name for entry in one.entries] for one in first.lineages[0].settled]
    assert names == [["a", "b"], ["a", "late", "later"]]
    assert [change.asked for change in first.config.changes] == [1, 2, 3]
    assert sum("asked for from elsewhere: late: enters in round 2" in one for one in said) == 1
    assert any('asked/00000004: unknown key "extnd"' in one for one in said)

    assert asks("extend", "--rounds", "1") == f"{url}: 3 rounds now; go on with the command that started it\n"
    assert [one.number for one in run("there", FakedWorkers(climbing)).lineages[0].settled] == [1, 2, 3]
    bring(url, tmp_path / "fetched")
    assert RunDirectory(tmp_path / "fetched").config.all_rounds == 3


def test_a_working_copy_is_changed_where_its_record_lies(inputs: Path, tmp_path: Path):
    """What was changed in the folder alone would be gone with the next driver."""
    (tmp_path / "store").mkdir()
    store = ObjectStore(f"file://{tmp_path}/store")
    config = faked_config(inputs, rounds=1, cluster={"storage": "s3://somewhere"})
    play_stored(config, tmp_path / "run", store)
    result = CliRunner().invoke(app, ["extend", str(tmp_path / "run"), "--rounds", "1"])
    assert result.exit_code == 0, result.output
    snapshot = play_stored(config, tmp_path / "run", store)
    assert [one.number for one in snapshot.lineages[0].settled] == [1, 2]


def test_what_was_asked_for_after_the_end_is_said_when_it_goes_on(inputs: Path, tmp_path: Path):
    (tmp_path / "store").mkdir()
    config = faked_config(inputs, rounds=1, cluster={"storage": f"file://{tmp_path}/store"})
    said: list[str] = []

    class Listening:
        name, pause_seconds = "listening", 0.0

        def hear(self, events: Sequence[TournamentEvent]) -> None:
            said.extend(map(str, events))

    def run() -> Snapshot:
        directory = RunDirectory(tmp_path / "run")
        return run_tournament(config, inputs / "faked.yaml", directory, None, [Listening()], FakedWorkers(climbing))

    assert run().is_finished
    assert CliRunner().invoke(app, ["extend", f"file://{tmp_path}/store/run", "--rounds", "1"]).exit_code == 0
    assert [one.number for one in run().lineages[0].settled] == [1, 2]
    assert sum("asked for from elsewhere: 1 more round" in one for one in said) == 1
