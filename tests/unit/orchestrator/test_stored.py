"""A tournament kept in an object store: it ends as one on a disk does, wherever and whenever its driver was lost."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cluster import staged_workers, staging, tree, working_copy
from cluster.object_store import ObjectStore
from cluster.staged_workers import StagedWorkers
from cluster.working_copy import WorkingCopy, bring
from competitors.contract import Brief
from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.snapshot import Snapshot
from tests.faked import FakedWorkers, allocated, climbing, faked_config, hand_in, play
from tests.unit.orchestrator.test_loop import Stopped, models, outcome


class StoppingObjectStore(ObjectStore):
    """Its writer is lost with its create number `last`, before it or after it has landed."""

    def __init__(self, url: str, last: int | None = None, *, landed: bool = False) -> None:
        super().__init__(url)
        self.count, self.last, self.landed = 0, last, landed

    def create(self, key: str, data: bytes) -> bool:
        self.count += 1
        is_over = self.last is not None and self.count >= self.last
        if is_over and not (self.landed and self.count == self.last):
            raise Stopped
        created = super().create(key, data)
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
