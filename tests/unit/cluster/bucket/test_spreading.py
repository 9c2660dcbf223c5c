"""What a call starts on other machines: it is handed the files, and what it leaves gets to the call."""

import os
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from cluster.bucket.spreading import Gathering, spread
from cluster.bucket.working_copy import WorkingCopy
from cluster.errors import ClusterTrouble
from tests.unit.cluster.bucket.making import LARGE, Work, call, look, names, no_answer, other_machine, save


def lead(work: Work, seed: Path, elsewhere: str) -> list[dict[str, bytes]]:
    """Two attempts of two workers each, the second of which is on a machine with a cache of its own."""
    seen = []
    for attempt in ("first", "second"):
        handed = spread(work, seed)
        with handed.here(0) as (same, model):
            assert (same, model) == (work, seed)
            save(same, attempt)
        with other_machine(elsewhere), handed.here(1) as (there, model):
            assert there.works_in != work.works_in
            seen.append(look(there.works_in / "brief.json", model))
            save(there, f"{attempt} log\n", "log-1.txt")
            save(there, "not kept", "kept.json")
        handed.gather(2)
        assert (work.works_in / "log-1.txt").read_text().endswith(f"{attempt} log\n")
    return seen


def test_workers_on_other_machines_have_the_files_as_they_are_when_they_start(copy: WorkingCopy, tmp_path: Path):
    entry, seed, elsewhere = copy.root / "entry", copy.root / "seed", tmp_path / "elsewhere"
    copy.write_text(entry / "brief.json", "{}")
    copy.write_text(seed / "model.safetensors", LARGE.decode())
    first, second = call(copy, lead, Work(entry), seed, str(elsewhere))
    given = {"entry/brief.json": b"{}", "seed/model.safetensors": LARGE}
    assert first == given
    assert second == given | {"entry/scratch/resume.json": b"first"}
    assert (entry / "log-1.txt").read_text() == "first log\nsecond log\n"
    assert names(copy.root) == {
        "entry/brief.json", "entry/log-1.txt", "entry/scratch/resume.json", "seed/model.safetensors"
    }  # fmt: skip
    assert not list((elsewhere / "views").iterdir())
    assert not [path for path in (tmp_path / "store" / "calls").rglob("*") if path.is_file()]


def lead_from_elsewhere(work: Work, elsewhere: str) -> None:
    handed = spread(work)
    with other_machine(elsewhere), handed.here(0):
        pass


def test_a_gang_whose_first_worker_is_on_another_machine_is_tried_again(copy: WorkingCopy, tmp_path: Path):
    copy.write_text(copy.root / "entry" / "brief.json", "{}")
    with pytest.raises(ClusterTrouble, match="its first worker was placed on another node"):
        call(copy, lead_from_elsewhere, Work(copy.root / "entry"), str(tmp_path / "elsewhere"))


def lead_where_the_store_fails(work: Work, elsewhere: str) -> str:
    handed = spread(work)
    with other_machine(elsewhere), no_answer(), handed.here(1) as (there,):
        save(there, "lost\n", "log-1.txt")
    handed.gather(2)
    return "trained"


def test_a_log_that_cannot_be_kept_costs_no_training(
    copy: WorkingCopy, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    copy.write_text(copy.root / "entry" / "brief.json", "{}")
    assert call(copy, lead_where_the_store_fails, Work(copy.root / "entry"), str(tmp_path / "elsewhere")) == "trained"
    assert "the log of worker 1 is not kept: the store is down" in caplog.text
    assert names(copy.root) == {"entry/brief.json"}


def test_where_all_see_one_disk_workers_are_handed_the_same_paths(tmp_path: Path):
    handed = spread(Work(tmp_path))
    with handed.here(1) as (work,):
        assert work == Work(tmp_path)
    handed.gather(2)


def search(work: Work, seed: Path, elsewhere: str) -> list[str]:
    """Two trials, on this machine and on another one; the second hears of the first."""
    trials = work.works_in / "trials"
    trials.mkdir()
    handed = spread(work, seed, trials)
    gathering, seen = Gathering(handed, work.works_in / "log.txt"), list[str]()
    with handed.apart(trials / "near", work.works_in / "log.txt") as ((same, model, there), exchange):
        assert (same, model, there) == (work, seed, trials)
        exchange()
    (trials / "best").write_text("2.5")
    gathering.put(trials / "best")
    with (
        other_machine(elsewhere),
        handed.apart(trials / "far", work.works_in / "log.txt") as ((mine, model, there), exchange),
    ):
        assert there != trials
        found = look(model / "model.safetensors")
        assert found == {"entry/log.txt": b"", "entry/brief.json": b"{}", "seed/model.safetensors": LARGE}
        save(mine, "log\n", "log.txt")
        for step in range(2):
            exchange()
            seen.append((there / "best").read_text())
            saved = there / "far" / f"checkpoint-{step}"
            saved.mkdir()
            (saved / "model.safetensors").write_bytes(LARGE)
            with (there / "far" / "progress.jsonl").open("a") as progress:
                progress.write(f"{step}\n")
            exchange()
            assert not (trials / "far").exists() or step
            with own_machine():
                gathering.take("far")
            moved = trials / "far" / saved.name
            assert (moved / "model.safetensors").read_bytes() == LARGE, "and not what stands for it"
            moved.rename(trials / f"kept-{step}")
            (trials / "best").write_text("2.0")
            with own_machine():
                gathering.put(trials / "best")
        log = mine.works_in / "log.txt"
        log.write_text("cut")  # as by `shorten`
        exchange()
        log.write_text("cut, and more\n")
        (there / "far" / "last.json").write_text("{}")
    gathering.end()
    assert (trials / "far" / "progress.jsonl").read_text() == "0\n1\n"
    return seen


def own_machine() -> AbstractContextManager[None]:
    return other_machine(os.environ["HOME_CACHE"])


def test_what_a_trial_elsewhere_writes_is_with_the_search_when_it_says_so(
    copy: WorkingCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("HOME_CACHE", os.environ["TOURNAMENT_CACHE"])
    entry, elsewhere = copy.root / "entry", tmp_path / "elsewhere"
    copy.write_text(entry / "brief.json", "{}")
    copy.write_text(copy.root / "seed" / "model.safetensors", LARGE.decode())
    assert call(copy, search, Work(entry), copy.root / "seed", str(elsewhere)) == ["2.5", "2.0"]
    assert (entry / "log.txt").read_text() == "log\n, and more\n"
    assert names(entry / "trials") == {
        "best", "far/last.json", "far/progress.jsonl", "kept-0/model.safetensors", "kept-1/model.safetensors"
    }  # fmt: skip
    assert not list((elsewhere / "views").iterdir())
    assert not [path for path in (tmp_path / "store" / "calls").rglob("*") if path.is_file()]


def search_through_an_outage(work: Work, elsewhere: str) -> list[str]:
    trials = work.works_in / "trials"
    handed = spread(work, trials)
    gathering = Gathering(handed, work.works_in / "log.txt")
    with other_machine(elsewhere), handed.apart(trials / "far", work.works_in / "log.txt") as ((_, there), exchange):
        (there / "far" / "progress.jsonl").write_text("1\n")
        with no_answer(), pytest.raises(ClusterTrouble):
            exchange()
        exchange()
    with no_answer("read"):
        gathering.take("far")
    heard = [(trials / "far").exists()]
    gathering.take("far")
    return [*heard, (trials / "far" / "progress.jsonl").read_text()]


def test_what_a_store_in_trouble_held_back_is_had_when_it_answers_again(
    copy: WorkingCopy, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    copy.write_text(copy.root / "entry" / "brief.json", "{}")
    found = call(copy, search_through_an_outage, Work(copy.root / "entry"), str(tmp_path / "elsewhere"))
    assert found == [False, "1\n"]
    assert "the store is down" in caplog.text
