"""What entries print: each into its own file, and nobody is left with a stream that is closed."""

import logging
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cluster import environment
from competitors import capture
from competitors.capture import captured_output


def test_prints_and_logs_of_an_entry_and_its_threads_go_into_its_file(tmp_path: Path):
    with captured_output(tmp_path / "a.txt"):
        print("printed")
        print("complained", file=sys.stderr)
        logging.getLogger("some.library").info("logged")
        thread = threading.Thread(target=lambda: print("from a thread"))
        thread.start()
        thread.join()
    logging.getLogger("some.library").warning("afterwards")
    print("afterwards")
    text = (tmp_path / "a.txt").read_text()
    assert "afterwards" not in text
    assert all(word in text for word in ("printed", "complained", "logged", "from a thread"))


def test_two_entries_side_by_side_do_not_mix_and_what_was_kept_stays_open(tmp_path: Path):
    """The first one in is the first one out, and a library keeps the stream that it found."""
    kept, first_is_in, second_is_in, first_is_out = [], threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with captured_output(tmp_path / "first.txt"):
            kept.append(sys.stderr)
            first_is_in.set()
            second_is_in.wait(30)
            print("of the first")
        first_is_out.set()

    def second() -> None:
        first_is_in.wait(30)
        with captured_output(tmp_path / "second.txt"):
            second_is_in.set()
            print("of the second")
            logging.getLogger("x").info("logged by the second")
            first_is_out.wait(30)
            print("still of the second")

    before = sys.stdout
    threads = [threading.Thread(target=one) for one in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "first.txt").read_text() == "of the first\n"
    text = (tmp_path / "second.txt").read_text()
    assert [line for line in text.splitlines() if "logged" not in line] == ["of the second", "still of the second"]
    assert "logged by the second" in text
    kept[0].write("")
    assert not kept[0].closed
    assert sys.stdout is before


def test_in_a_process_of_its_own_native_code_and_children_print_into_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def says(words: str) -> None:
        os.write(1, f"native {words}\n".encode())
        subprocess.run(["sh", "-c", f"echo child {words} >&2"], check=True)

    with captured_output(tmp_path / "shared.txt"):
        says("elsewhere")
    monkeypatch.setattr(environment, "_settled", [os.getpid()])
    with captured_output(tmp_path / "own.txt"):
        says("here")
    says("afterwards")
    assert (tmp_path / "own.txt").read_text() == "native here\nchild here\n"
    assert (tmp_path / "shared.txt").read_text() == ""


def test_a_flood_is_bounded_while_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(capture, "LOOK_SECONDS", 0.01)
    log = tmp_path / "log.txt"
    with captured_output(log):
        sys.stdout.write("x" * 4 * 2**20 + "\n")  # at once: what comes while a log is being cut may be lost
        deadline = time.monotonic() + 30
        while log.stat().st_size > 3 * 2**20 and time.monotonic() < deadline:
            time.sleep(0.01)
        assert log.stat().st_size < 3 * 2**20
        print("the end")
    assert log.read_text().endswith("x\nthe end\n")
