"""Calls on machines that share no disk: what is read gets there, what is written comes back, whatever happens."""

import asyncio
import base64
import errno
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cluster.bucket import tree
from cluster.bucket.blobs import Blobs
from cluster.bucket.journal import Journal
from cluster.bucket.object_store import ObjectStore
from cluster.bucket.staged_workers import StagedWorkers
from cluster.bucket.working_copy import WorkingCopy
from cluster.errors import ClusterTrouble, Forfeit
from cluster.in_process import InProcessWorkers
from cluster.store import LOCAL, LocalStore
from tests.unit.cluster.bucket.making import LARGE, Work, call, look, names, no_answer, save
from tests.worker_contract import (  # noqa: F401 - collected here
    SMALL,
    test_a_call_that_is_cancelled_is_ended_and_its_place_is_free,
    test_a_call_that_is_late_is_ended_and_its_place_is_free,
    test_a_result_comes_back_and_who_waits_is_told_of_the_start,
    test_an_error_of_who_waits_leaves_the_place_free,
    test_no_more_at_once_than_there_is_room_for,
    test_our_errors_come_through_and_others_are_said_in_a_line,
    test_the_deadline_does_not_count_the_wait_for_a_place,
    test_the_room_of_a_cluster_does_not_depend_on_what_runs,
    test_what_can_never_be_had_is_refused,
    test_what_is_more_urgent_goes_first_and_then_what_came_first,
)


class Job(NamedTuple):
    model: Path
    adds_to: Path


@pytest.fixture
def workers(copy: WorkingCopy) -> StagedWorkers:
    return StagedWorkers(InProcessWorkers(trainers=2, cpus=2, room=2), copy)


def test_a_call_sees_what_its_arguments_name_and_nothing_else(copy: WorkingCopy):
    for name in ("seed/model.safetensors", "data/train.parquet", "data/held_out/test.parquet"):
        copy.write_text(copy.root / name, LARGE.decode() + name)
    copy.write_text(copy.root / "seed" / "config.json", "{}")
    seen = call(copy, look, copy.root / "seed", copy.root / "data" / "train.parquet")
    assert set(seen) == {"seed/model.safetensors", "seed/config.json", "data/train.parquet"}
    assert seen["seed/model.safetensors"] == LARGE + b"seed/model.safetensors"


def spoil(path: Path) -> None:
    path.write_bytes(b"spoilt")


def test_a_place_of_its_own_may_be_written_to_in_any_way(copy: WorkingCopy):
    copy.write_text(copy.root / "entry" / "submission" / "model.safetensors", LARGE.decode())
    assert call(copy, spoil_own, Work(copy.root / "entry")) == 1, "it is no link to the cache"
    assert call(copy, look, copy.root / "entry" / "submission")["entry/submission/model.safetensors"] == b"spoilt"
    copy.write_text(copy.root / "other" / "model.safetensors", LARGE.decode())
    assert call(copy, look, copy.root / "other")["other/model.safetensors"] == LARGE, "the cache was not"


def spoil_own(work: Work) -> int:
    """How many names the file had that is no more what it was."""
    file = work.works_in / "submission" / "model.safetensors"
    links = file.stat().st_nlink
    file.write_bytes(b"spoilt")
    return links


def hand_in(folder: Path) -> str:
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(LARGE)
    (folder / "config.json").write_text("{}")
    (folder / ".temporary").write_text("hidden")
    (folder.parent / "running").write_text("of this machine")
    return str(folder)


def test_what_a_call_writes_comes_back_and_is_on_record(copy: WorkingCopy, tmp_path: Path):
    where = call(copy, hand_in, copy.root / "entry" / "submission")
    assert not where.startswith(str(copy.root)), "it worked elsewhere"
    assert names(copy.root) == {"entry/submission/model.safetensors", "entry/submission/config.json"}
    assert tree.stood_in_for(copy.root / "entry/submission/model.safetensors") is not None
    copy.close()
    again = WorkingCopy(tmp_path / "elsewhere", copy.store).open()
    assert names(again.root) == names(copy.root)
    again.close()
    assert not list((tmp_path / "cache" / "views").iterdir())
    assert not [path for path in (tmp_path / "store" / "calls").rglob("*") if path.is_file()]


def hand_in_and_fail(folder: Path, how: str) -> None:
    hand_in(folder)
    if how == "forfeit":
        raise Forfeit("as it says")
    if how == "exit":
        sys.exit(3)
    raise RuntimeError("a bug")


@pytest.mark.parametrize(("how", "error"), [("forfeit", Forfeit), ("bug", ClusterTrouble)])
def test_what_it_wrote_before_it_failed_comes_back_too(copy: WorkingCopy, how: str, error: type[Exception]):
    with pytest.raises(error, match=r"as it says|hand_in_and_fail failed in its worker: RuntimeError: a bug"):
        call(copy, hand_in_and_fail, copy.root / "entry" / "submission", how)
    assert "entry/submission/config.json" in names(copy.root)


def pretend(folder: Path) -> None:
    folder.mkdir(parents=True)
    for name in ("model.safetensors", "notes.json", "notes.txt"):
        (folder / name).write_text(f'{tree.STAND_IN}{{"sha256": "{name}"')


def test_what_only_looks_like_a_stand_in_stays_what_it_is(copy: WorkingCopy):
    folder = copy.root / "entry" / "submission"
    call(copy, pretend, folder)
    seen = call(copy, look, folder)
    assert len(seen) == 3
    assert all(text.decode() == f'{tree.STAND_IN}{{"sha256": "{Path(name).name}"' for name, text in seen.items())


def remove_some(work: Work) -> None:
    (work.works_in / "scratch" / "large.safetensors").unlink()
    (work.works_in / "small.json").unlink()
    (work.works_in / "log.txt").open("a").write("more\n")


def test_what_it_removes_is_gone_and_what_it_appends_to_grows(copy: WorkingCopy):
    entry = copy.root / "entry"
    copy.write_text(entry / "scratch" / "large.safetensors", LARGE.decode())
    copy.write_text(entry / "small.json", "{}")
    copy.write_text(entry / "log.txt", "some\n")
    call(copy, remove_some, Work(entry))
    assert names(copy.root) == {"entry/log.txt"}
    assert not (entry / "scratch").exists()
    assert (entry / "log.txt").read_text() == "some\nmore\n"


def add_to(job: Job) -> list[str]:
    seen = sorted(name for name, _ in tree.files_below(job.adds_to))
    (job.adds_to / "scorecard.json").write_text("both")
    return seen


def test_of_what_it_adds_to_it_gets_the_files_alone(copy: WorkingCopy):
    copy.write_text(copy.root / "entry" / "scorecard.json", "one")
    copy.write_text(copy.root / "entry" / "continuation" / "optimizer.pt", LARGE.decode())
    copy.write_text(copy.root / "champion" / "config.json", "{}")
    assert call(copy, add_to, Job(copy.root / "champion", copy.root / "entry")) == ["scorecard.json"]
    assert (copy.root / "entry" / "scorecard.json").read_text() == "both"
    assert (copy.root / "entry" / "continuation" / "optimizer.pt").exists()


def train(work: Work) -> str:
    """Report, save a checkpoint, and go on until told to stop."""
    with (work.works_in / "progress.jsonl").open("a") as reports:
        for step in range(2000):
            reports.write(f"{step}\n")
            reports.flush()
            if step == 3:
                temporary = work.works_in / ".checkpoint-3"
                temporary.mkdir()
                (temporary / "model.safetensors").write_bytes(LARGE)
                temporary.rename(work.works_in / "checkpoint-3")
            if (work.works_in / "stop").exists():
                return (work.works_in / "stop").read_text()
            time.sleep(0.01)
    return "was never told to stop"


def score(reports: Path) -> None:
    for step in range(2000):
        with reports.open("a") as file:
            file.write(f"{step}\n")
        time.sleep(0.01)


def followed(
    copy: WorkingCopy,
    until: Callable[[], bool],
    act: Callable[[asyncio.Task[Any]], object],
    function: Callable[[Any], Any] = train,
    argument: Any = None,
) -> Any:
    """A call of `train`, or of `function`, and `act` as soon as `until` says so."""

    async def main() -> Any:
        workers = StagedWorkers(InProcessWorkers(), copy)
        training = asyncio.create_task(workers.call(SMALL, function, argument or Work(copy.root / "entry")))
        async with asyncio.timeout(60):
            while not until():
                assert not training.done()
                await asyncio.sleep(0.01)
        act(training)
        return await training

    copy.write_text(copy.root / "entry" / "brief.json", "{}")
    return asyncio.run(main())


def test_a_call_is_followed_and_can_be_told_to_stop(copy: WorkingCopy):
    entry = copy.root / "entry"
    reports = entry / "progress.jsonl"
    said = followed(
        copy,
        lambda: reports.exists() and reports.stat().st_size > 100 and (entry / "checkpoint-3").exists(),
        lambda training: copy.write_text(entry / "stop", "enough"),
    )
    assert said == "enough"
    lines = reports.read_text().splitlines()
    assert lines == [str(step) for step in range(len(lines))], "no report is lost, or comes twice"


def test_reports_elsewhere_are_followed_too(copy: WorkingCopy):
    """As of scoring, which adds to what the training reported."""
    reports = copy.root / "entry" / "progress.jsonl"
    copy.write_text(reports, "trained\n")
    with pytest.raises(asyncio.CancelledError):
        followed(copy, lambda: reports.stat().st_size > 50, lambda scoring: scoring.cancel(), score, reports)
    first, *lines = reports.read_text().splitlines()
    assert (first, lines) == ("trained", [str(step) for step in range(len(lines))])


def test_a_call_that_is_killed_leaves_its_last_checkpoint_on_record(copy: WorkingCopy, tmp_path: Path):
    entry = copy.root / "entry"
    with pytest.raises(asyncio.CancelledError):
        followed(copy, (entry / "checkpoint-3").exists, lambda training: training.cancel())
    assert tree.stood_in_for(entry / "checkpoint-3" / "model.safetensors") is not None
    copy.close()
    again = WorkingCopy(tmp_path / "elsewhere", copy.store).open()
    assert (again.root / "entry" / "checkpoint-3" / "model.safetensors").exists()
    assert (again.root / "entry" / "progress.jsonl").exists()
    again.close()


def work_through_an_outage(work: Work) -> None:
    save(work, "before", "removed.json")
    time.sleep(0.3)
    with no_answer() as create:
        save(work, "during", "kept.json")
        (work.works_in / "removed.json").unlink()
        deadline = time.monotonic() + 60
        while not create.called:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_what_could_not_be_told_for_a_while_is_told_when_the_store_answers_again(copy: WorkingCopy):
    copy.write_text(copy.root / "entry" / "brief.json", "{}")
    call(copy, work_through_an_outage, Work(copy.root / "entry"))
    assert names(copy.root) == {"entry/brief.json", "entry/kept.json"}


def test_a_call_whose_store_fails_is_trouble_of_the_cluster(copy: WorkingCopy, monkeypatch: pytest.MonkeyPatch):
    def fail(*args: Any) -> Any:
        raise ClusterTrouble("the store is down")

    monkeypatch.setattr(ObjectStore, "upload", fail)
    with pytest.raises(ClusterTrouble, match="the store is down"):
        call(copy, hand_in, copy.root / "entry" / "submission")
    monkeypatch.undo()
    assert names(copy.root) == set(), "and nothing half of it is here"


def save_over_and_over(work: Work) -> None:
    """A checkpoint of two files in the place of the last one, every now and then, until it is killed."""
    for step in range(2000):
        new = work.works_in / ".new"
        new.mkdir()
        for name in ("optimizer.pt", "trunk.safetensors"):
            (new / name).write_bytes(b"%06d" % step * 300)
        if (work.works_in / "resume").exists():
            (work.works_in / "resume").rename(work.works_in / ".old")
        new.rename(work.works_in / "resume")
        LOCAL.remove(work.works_in / ".old")
        time.sleep(0.3)


def test_a_checkpoint_on_record_is_of_one_moment(copy: WorkingCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Though files are stored one after another, more slowly than the next one is saved."""
    put = Blobs.put_file

    def slow(blobs: Blobs, path: Path) -> Any:
        time.sleep(0.4)
        return put(blobs, path)

    def stored() -> set[bytes]:
        state, _ = Journal(copy.store).read()
        blobs = [content.blob for name, content in state.items() if name.startswith("entry/resume/")]
        return {b"".join(copy.store.download(copy.blobs.key(blob), blob.size))[:6] for blob in blobs if blob}

    monkeypatch.setattr(Blobs, "put_file", slow)
    seen = set[bytes]()

    def until() -> bool:
        now = stored()
        assert len(now) <= 1
        seen.update(now)
        return len(seen) > 2

    with pytest.raises(asyncio.CancelledError):
        followed(copy, until, lambda training: training.cancel(), save_over_and_over)


def say_where(work: Work) -> None:
    """Each time a folder, and at once a report of it."""
    for step in range(8):
        folder = work.works_in / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(LARGE)
        with (work.works_in / "progress.jsonl").open("a") as reports:
            reports.write(f"{folder.name}\n")
        time.sleep(0.4)


def test_what_a_report_names_is_there_when_it_is_heard(copy: WorkingCopy):
    """A race looks at a checkpoint when it hears of it, and not again."""
    entry, heard = copy.root / "entry", set[str]()

    def until() -> bool:
        reports = entry / "progress.jsonl"
        for name in reports.read_text().split() if reports.exists() else ():
            assert (entry / name / "model.safetensors").exists(), name
            heard.add(name)
        return len(heard) > 4

    followed(copy, until, lambda training: None, say_where)


def rewrite_without_end(work: Work) -> None:
    for step in range(1000):
        (work.works_in / "state.bin").write_bytes(b"%d" % step)
        with (work.works_in / "progress.jsonl").open("a") as reports:
            reports.write(f"{step}\n")
        time.sleep(0.01)


def test_who_writes_a_file_without_end_is_heard_all_the_same(copy: WorkingCopy):
    reports = copy.root / "entry" / "progress.jsonl"
    with pytest.raises(asyncio.CancelledError):
        followed(
            copy,
            lambda: reports.exists() and len(reports.read_text().split()) > 20,
            lambda training: training.cancel(),
            rewrite_without_end,
        )


def test_the_follower_outlives_an_error_of_the_disk(copy: WorkingCopy, monkeypatch: pytest.MonkeyPatch):
    create, failed = LocalStore.create, list[Path]()

    def stale(store: LocalStore, path: Path, data: bytes) -> bool:
        if "/out/" in str(path) and len(failed) < 2:
            failed.append(path)
            raise OSError(errno.ESTALE, "Stale file handle")
        return create(store, path, data)

    monkeypatch.setattr(LocalStore, "create", stale)
    reports = copy.root / "entry" / "progress.jsonl"
    followed(copy, reports.exists, lambda training: copy.write_text(copy.root / "entry" / "stop", "enough"))
    assert len(failed) == 2


def write_twice(work: Work) -> None:
    for text in ("old", "new, and last"):
        (work.works_in / "a.json").write_text(text)
        for _ in range(50):
            time.sleep(0.01)
    while True:
        time.sleep(0.01)


def test_what_is_taken_late_when_a_call_is_called_off_does_not_come_back(
    copy: WorkingCopy, monkeypatch: pytest.MonkeyPatch
):
    take, begun = WorkingCopy.take, list[float]()
    last = base64.b64encode(b"new, and last")

    def is_told() -> bool:
        return any(last in (copy.store.read(key) or b"") for key in copy.store.list("calls"))

    def slow(own: WorkingCopy, *args: Any, **more: Any) -> None:
        begun.append(time.monotonic())
        if len(begun) == 1:
            while not is_told():
                time.sleep(0.01)
            time.sleep(1)
        take(own, *args, **more)

    monkeypatch.setattr(WorkingCopy, "take", slow)

    with pytest.raises(asyncio.CancelledError):
        followed(copy, lambda: bool(begun) and is_told(), lambda training: training.cancel(), write_twice)
    assert (copy.root / "entry" / "a.json").read_text() == "new, and last"
