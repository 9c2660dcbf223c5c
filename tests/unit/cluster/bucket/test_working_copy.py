"""A folder whose every change is in a store: it comes back whole anywhere, and only one program goes on with it."""

from pathlib import Path

import pytest

from cluster.bucket import tree, working_copy
from cluster.bucket.object_store import ObjectStore
from cluster.bucket.working_copy import TakenOver, WorkingCopy, bring
from cluster.errors import ClusterTrouble, UserError

LARGE = b"many weights " * 100


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(tree, "SMALL_BYTES", 1000)
    monkeypatch.setattr(working_copy, "BEAT_SECONDS", 0.05)
    (tmp_path / "store").mkdir()


def copy_at(tmp_path: Path, name: str = "copy") -> WorkingCopy:
    return WorkingCopy(tmp_path / name, ObjectStore(f"file://{tmp_path}/store"), ["report.html"])


def contents(folder: Path) -> dict[str, bytes]:
    return {name: path.read_bytes() for name, path in tree.files_below(folder)}


def change_everything(copy: WorkingCopy) -> None:
    """One of everything that a tournament does to its folder."""
    root = copy.root
    copy.write_text(root / "round-1" / "roster.json", "first")
    copy.write_text(root / "round-1" / "roster.json", "second")
    with copy.writing(root / "seed") as temporary:
        temporary.mkdir()
        (temporary / "model.safetensors").write_bytes(LARGE)
        (temporary / "config.json").write_text("{}")
    copy.link_folder(root / "seed", root / "champion")
    with copy.writing(root / "seed") as temporary:
        temporary.mkdir()
        (temporary / "other.safetensors").write_bytes(LARGE + LARGE)
    copy.write_text(root / "lost" / "entry.json", "gone")
    copy.remove(root / "lost")
    (root / "data").mkdir()
    (root / "data" / "train.parquet").write_bytes(LARGE)
    copy.keep(root / "data")
    copy.move(root / "data" / "train.parquet", root / "data" / "moved.parquet")
    copy.write_text(root / "report.html", "drawn")


def test_everything_comes_back_in_another_folder(tmp_path: Path):
    copy = copy_at(tmp_path).open()
    change_everything(copy)
    copy.close()
    again = copy_at(tmp_path, "elsewhere/copy").open()
    found = contents(again.root)
    again.close()
    assert set(found) == {
        *("round-1/roster.json", "seed/other.safetensors", "champion/model.safetensors"),
        *("champion/config.json", "data/moved.parquet"),
    }
    assert found["round-1/roster.json"] == b"second"
    assert found["data/moved.parquet"] == LARGE, "what is read on every machine is whole"
    assert tree.stood_in_for(again.root / "seed/other.safetensors") is not None, "weights are not brought here"
    tree.make_whole(again.root, again.blobs)
    assert contents(again.root)["seed/other.safetensors"] == LARGE + LARGE
    assert contents(again.root)["champion/model.safetensors"] == LARGE


def test_it_can_be_fetched_whole(tmp_path: Path):
    copy = copy_at(tmp_path).open()
    change_everything(copy)
    url = copy.store.url
    bring(url, tmp_path / "fetched")  # from under a program that is at it
    assert contents(tmp_path / "fetched")["champion/model.safetensors"] == LARGE
    assert [path.name for path in (tmp_path / "fetched").iterdir() if path.name.startswith(".")] == []
    with pytest.raises(UserError, match="is there already"):
        bring(url, tmp_path / "fetched")
    (tmp_path / "nothing").mkdir()
    with pytest.raises(UserError, match="no tournament lies there"):
        bring(f"file://{tmp_path}/nothing", tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()
    copy.close()


def test_it_comes_back_after_a_kill_at_any_change(tmp_path: Path):
    copy = copy_at(tmp_path).open()
    change_everything(copy)
    copy.close()
    numbers = sorted((tmp_path / "store/journal").iterdir(), reverse=True)
    states = []
    for last in numbers:
        killed = copy_at(tmp_path, last.name).open()
        states.append(set(contents(killed.root)))
        killed._stop_beating()  # as one that was killed, or whose machine stands still
        last.unlink()
    assert len(numbers) == 10
    assert states[-1] == {"round-1/roster.json"}
    with_seed = [state for state in states if any(name.startswith("seed/") for name in state)]
    assert all({"seed/model.safetensors", "seed/config.json"} <= state for state in with_seed[-2:]), "never half a seed"


def test_what_was_written_here_alone_does_not_count(tmp_path: Path):
    copy = copy_at(tmp_path).open()
    copy.write_text(copy.root / "kept.json", "kept")
    copy.close()
    (copy.root / "not_kept.json").write_text("killed before it was on record")
    again = copy_at(tmp_path).open()
    again.close()
    assert set(contents(again.root)) == {"kept.json"}


def test_a_program_that_runs_is_not_taken_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(working_copy, "BEAT_SECONDS", 0.5)
    copy = copy_at(tmp_path).open()
    with pytest.raises(UserError, match="another driver is running this tournament now"):
        copy_at(tmp_path, "other").open()
    copy.write_text(copy.root / "a.json", "undisturbed")
    copy.close()
    copy_at(tmp_path, "other").open().close()


def test_one_that_only_seemed_dead_can_do_no_harm(tmp_path: Path):
    slept = copy_at(tmp_path).open()
    slept._stop_beating()
    now = copy_at(tmp_path, "now").open()
    now.write_text(now.root / "verdict.json", "now")
    with pytest.raises(TakenOver, match="another driver goes on"):
        slept.write_text(slept.root / "verdict.json", "then")
    with pytest.raises(TakenOver):
        slept.close()
    now.close()
    assert contents(copy_at(tmp_path, "later").open().root)["verdict.json"] == b"now"


def test_only_blobs_that_something_refers_to_stay(tmp_path: Path):
    copy = copy_at(tmp_path).open()
    change_everything(copy)
    copy.close()
    lying = {path.stat().st_size for path in (tmp_path / "store/blobs").rglob("*") if path.is_file()}
    assert lying == {len(LARGE), 2 * len(LARGE)}
    copy = copy_at(tmp_path).open()
    copy.remove(copy.root / "seed")
    copy.close()
    lying = {path.stat().st_size for path in (tmp_path / "store/blobs").rglob("*") if path.is_file()}
    assert lying == {len(LARGE)}


def test_views_lie_in_the_store_for_people(tmp_path: Path):
    copy = copy_at(tmp_path).open()
    copy.write_text(copy.root / "report.html", "drawn")
    copy.write_text(copy.root / "report.html", "drawn again")
    copy.close()
    assert (tmp_path / "store/report.html").read_text() == "drawn again"
    assert len(list((tmp_path / "store/journal").iterdir())) == 1


@pytest.mark.parametrize("mark", [None, "file:///another/store"])
def test_another_folder_is_left_alone(tmp_path: Path, mark: str | None):
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy/precious.txt").write_text("somebody's")
    if mark is not None:
        (tmp_path / "copy/.storage").write_text(mark)
    with pytest.raises(UserError, match="give another --run-dir"):
        copy_at(tmp_path).open()
    assert (tmp_path / "copy/precious.txt").read_text() == "somebody's"


def test_a_change_whose_answer_was_lost_is_not_taken_for_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    create, copy = ObjectStore.create, copy_at(tmp_path).open()

    def landed_or_lost(store: ObjectStore, key: str, data: bytes, mark: str | None = None) -> bool:
        if lands:
            create(store, key, data, mark)
        raise ClusterTrouble("nothing answers")

    for lands in (True, False):
        name = f"{lands}.json"
        with monkeypatch.context() as context:
            context.setattr(ObjectStore, "create", landed_or_lost)
            with pytest.raises(ClusterTrouble):
                copy.write_text(copy.root / name, "not known to be on record")
        copy.write_text(copy.root / f"after-{name}", "on record")
    copy.close()
    again = copy_at(tmp_path, "elsewhere").open()
    assert set(contents(again.root)) == {"True.json", "after-True.json", "False.json", "after-False.json"}
    again.close()
    other = copy_at(tmp_path, "other")
    other._restore()
    copy._closing.clear()
    other.write_text(other.root / "theirs.json", "")
    with pytest.raises(TakenOver):
        copy.write_text(copy.root / "ours.json", "")


def test_nobody_else_on_this_machine_may_look(tmp_path: Path):
    copy = copy_at(tmp_path).open()
    assert copy.root.stat().st_mode & 0o777 == 0o700
    copy.close()


def test_where_nothing_lies_there_is_nothing_to_look_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOURNAMENT_CACHE", str(tmp_path / "cache"))
    with pytest.raises(UserError, match="no tournament lies there"):
        working_copy.stored_folder(f"file://{tmp_path}/store")
    working_copy._looked_in.close()


def test_two_may_look_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TOURNAMENT_CACHE", str(tmp_path / "cache"))
    copy = copy_at(tmp_path).open()
    change_everything(copy)
    copy.close()
    first, second = (working_copy.stored_folder(copy.store.url) for _ in range(2))
    assert first.root != second.root
    assert first.root.name == second.root.name == "store"
    assert contents(first.root) == contents(second.root)
    working_copy._looked_in.close()
    assert not list((tmp_path / "cache" / "views").iterdir())
