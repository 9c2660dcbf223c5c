"""What a process that ended can still say."""

import subprocess
import sys
from pathlib import Path

import pytest

from cluster.last_words import Vitals, exit_code, has_gone, how_it_ended, kill_counter, kills

PROCESS = """
import ctypes, os, signal, sys, time
from pathlib import Path
from cluster.last_words import keep_note, note_exit
keep_note(Path(sys.argv[1]))
child = os.fork()
if child == 0:
    os._exit(5)
os.waitpid(child, 0)
"""


def words(tmp_path: Path, ending: str, kills_before: int = 0, counter: Path | None = None) -> str:
    """How a process says that it ended, whose last line is `ending`."""
    note = tmp_path / "note"
    process = subprocess.Popen([sys.executable, "-c", PROCESS + ending, str(note)], stderr=subprocess.DEVNULL)
    process.wait(60)
    return how_it_ended(Vitals(process.pid, note, counter, kills_before))


@pytest.mark.parametrize(
    ("ending", "said"),
    [
        ("ctypes.string_at(0)", "its process died of SIGSEGV (segmentation fault)"),
        ("os.abort()", "its process died of SIGABRT (aborted)"),
        ("os.kill(os.getpid(), signal.SIGFPE)", "its process died of SIGFPE (floating point exception)"),
        ("os.kill(os.getpid(), signal.SIGTERM)", "its process was told to end (SIGTERM)"),
        ("os._exit(3)", "its process ended itself with exit code 3"),
        ("note_exit(Path(sys.argv[1]), 'why')", "its process ended itself with exit code 1"),
    ],
)
def test_what_can_be_said_is(tmp_path: Path, ending: str, said: str):
    assert words(tmp_path, ending) == said


def test_of_a_process_that_said_nothing_the_kernels_counter_may(tmp_path: Path):
    counter = tmp_path / "memory.events"
    counter.write_text("low 0\noom 7\noom_kill 3\noom_group_kill 0\n")
    kill = "os.kill(os.getpid(), signal.SIGKILL)"
    assert words(tmp_path, kill, 2, counter).startswith(
        "its process was killed (SIGKILL), as the kernel does when memory"
    )
    assert words(tmp_path, kill, 3, counter).endswith("the kernel's counter does not say that memory ran out")
    assert words(tmp_path, kill).endswith("whether memory ran out is not known")
    assert how_it_ended(Vitals(1, tmp_path / "none", None, 0)) == "its process ended, and its note of why is gone"


def test_the_counter_is_that_of_the_own_group_or_the_machines(tmp_path: Path):
    cgroups, vmstat, root = tmp_path / "cgroup", tmp_path / "vmstat", tmp_path / "root"
    cgroups.write_text("4:memory:/old\n0::/user/job\n")
    assert kill_counter(cgroups, root, vmstat) is None
    vmstat.write_text("nr_free_pages 1\noom_kill 4\n")
    assert kill_counter(cgroups, root, vmstat) == vmstat
    assert kills(vmstat) == 4
    (root / "user" / "job").mkdir(parents=True)
    events = root / "user" / "job" / "memory.events"
    events.write_text("oom 1\noom_kill 1\n")
    assert kill_counter(cgroups, root, vmstat) == events
    assert kills(None) == kills(tmp_path / "gone") == 0


def test_exit_codes_are_those_of_sys_exit():
    assert [exit_code(status) for status in (None, 0, 3, "text")] == [0, 0, 3, 1]


def test_whether_a_process_has_gone():
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    assert not has_gone(process.pid, 0.01)
    process.kill()
    assert has_gone(process.pid, 60)
    assert has_gone(process.pid, 0.01)
