"""Whether an entry's processes may still write."""

import threading
from pathlib import Path

import pytest

from competitors import running


def test_it_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = tmp_path / "running"
    assert running.wait_until_ended(file)
    running.mark(file)
    threading.Timer(0.2, file.unlink).start()
    assert running.wait_until_ended(file)
    running.mark(file)
    monkeypatch.setattr(running, "ENDING_SECONDS", 0.1)
    assert not running.wait_until_ended(file)


def test_a_mark_tells_this_machine_from_another(tmp_path: Path):
    file = tmp_path / "running"
    assert not running.is_of_this_machine(file)
    running.mark(file)
    assert running.is_of_this_machine(file)
    file.write_text("0f3a another boot pid:[1]")
    assert not running.is_of_this_machine(file)
