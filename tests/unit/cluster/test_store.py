"""Files that are whole or absent."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster import store
from cluster.store import LOCAL


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    for name in ("model.safetensors", "config.json", "sub/more.safetensors"):
        (folder / name).write_text(name)
    return folder


def names(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*") if file.is_file())


def test_what_is_written_appears_whole(tmp_path: Path):
    path = tmp_path / "not" / "yet" / "it"
    with LOCAL.writing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    LOCAL.write_text(path, "née")
    assert path.read_text(encoding="utf-8") == "née"
    assert names(tmp_path) == ["not/yet/it"]


def test_what_is_written_is_flushed_before_it_appears(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Or a machine that loses its power keeps the name and not the content."""
    flushed: list[tuple[str, bool]] = []
    monkeypatch.setattr(store, "flush", lambda path: flushed.append((path.read_text(), (tmp_path / "it").exists())))
    LOCAL.write_text(tmp_path / "it", "new")
    assert flushed == [("new", False)]


def test_a_write_that_fails_leaves_nothing_new_and_what_was_there(tmp_path: Path, model: Path):
    def half(path: Path) -> None:
        with LOCAL.writing(path) as temporary:
            temporary.mkdir()
            (temporary / "half").touch()
            raise OSError("full")

    before = names(tmp_path)
    for path in (tmp_path / "new", model):
        with pytest.raises(OSError, match="full"):
            half(path)
    assert names(tmp_path) == before
    assert sorted(child.name for child in tmp_path.iterdir()) == ["model"]


def test_a_folder_takes_a_folders_place(tmp_path: Path, model: Path):
    with LOCAL.writing(model) as temporary:
        temporary.mkdir()
        (temporary / "only").touch()
    assert names(model) == ["only"]
    (tmp_path / "other").mkdir()
    LOCAL.move(model, tmp_path / "other")
    assert names(tmp_path) == ["other/only"]


def test_a_linked_folder_shares_weights_and_nothing_that_may_be_written_to(tmp_path: Path, model: Path):
    linked = tmp_path / "linked"
    LOCAL.link_folder(model, linked)
    assert names(linked) == names(model)
    shared = {name for name in names(model) if (linked / name).samefile(model / name)}
    assert shared == {"model.safetensors", "sub/more.safetensors"}
    (linked / "config.json").write_text("changed")
    assert (model / "config.json").read_text() == "config.json"


def test_a_linked_folder_keeps_what_it_is_told_to_and_follows_links(tmp_path: Path, model: Path):
    (model / "linked.json").symlink_to(model / "config.json")
    LOCAL.link_folder(model, tmp_path / "linked", keep=lambda name: name.endswith(".json"))
    assert names(tmp_path / "linked") == ["config.json", "linked.json"]
    assert not (tmp_path / "linked" / "linked.json").is_symlink()


def test_a_copied_folder_shares_nothing(tmp_path: Path, model: Path):
    LOCAL.copy_folder(model, tmp_path / "copy")
    assert names(tmp_path / "copy") == names(model)
    assert not any((tmp_path / "copy" / name).samefile(model / name) for name in names(model))


def test_removing_spares_what_a_link_leads_to_and_minds_nothing_missing(tmp_path: Path, model: Path):
    link = tmp_path / "link"
    link.symlink_to(model)
    for path in (link, link, tmp_path / "nothing"):
        LOCAL.remove(path)
    assert not link.is_symlink()
    assert (model / "config.json").exists()
    LOCAL.remove(model)
    assert names(tmp_path) == []


def test_a_lock_has_one_holder_and_goes_with_its_process(tmp_path: Path):
    lock = tmp_path / "folder" / "lock"
    assert not LOCAL.is_locked(lock)
    with LOCAL.locked(lock, wait=False):
        assert LOCAL.is_locked(lock)
        with pytest.raises(BlockingIOError), LOCAL.locked(lock, wait=False):
            pass
    assert not LOCAL.is_locked(lock)
    code = (
        "import os, sys; from pathlib import Path; from cluster.store import LOCAL\n"
        "with LOCAL.locked(Path(sys.argv[1]), wait=True): os._exit(9)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(lock)], check=False).returncode == 9
    assert not LOCAL.is_locked(lock)


def test_a_full_disk_names_what_was_to_be_written(tmp_path: Path):
    full, result = tmp_path / "full", tmp_path / "result.json"
    full.symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device.*result\.json"), LOCAL.writing(result):
        full.write_text("x")
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
