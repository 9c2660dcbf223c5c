"""Programs for kind `command` that do what they should not: `python hostile.py NAME`. Each does little harm even
where nothing stops it."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

OUT = Path(os.environ["BRIEF_OUTPUT_DIR"])
SEED = Path(os.environ["BRIEF_SEED_MODEL"])


def report(**event: object) -> None:
    with open(os.environ["BRIEF_PROGRESS_FILE"], "a") as stream:
        stream.write(json.dumps(event) + "\n")


def save(folder: Path) -> None:
    """The seed but for the last bit of one weight, each program's another: as good, and no copy."""
    shutil.copytree(SEED, folder, dirs_exist_ok=True)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    if len(weights) > 32:  # a made-up seed has fewer
        weights[-4 * (1 + zlib.crc32(sys.argv[1].encode()) % 8)] ^= 1
    (folder / "model.safetensors").write_bytes(weights)


def good() -> None:
    """Hands in its seed, all but exactly."""
    report(event="started")
    report(event="step", step=3, tokens=30, loss=1.5)
    save(OUT)


def forks() -> None:
    """Forks without end, that is 400 times."""
    for _ in range(400):
        if os.fork() == 0:
            time.sleep(60)
            os._exit(0)
    time.sleep(60)


def threads() -> None:
    """Threads instead, which are not processes."""
    for _ in range(300):
        threading.Thread(target=time.sleep, args=[60], daemon=True).start()
    time.sleep(60)


def daemon() -> None:
    """Leaves a process of its own session behind, which names the entry's folder, and hands in a model."""
    sleeper = [sys.executable, "-c", "import time; time.sleep(987)", str(OUT)]
    subprocess.Popen(sleeper, start_new_session=True, stdin=subprocess.DEVNULL)
    good()


def fills_the_disk() -> None:
    """One file of a megabyte after the other."""
    for number in range(200):
        (OUT / f"{number}.safetensors").write_bytes(bytes(2**20))
        time.sleep(0.01)


def one_large_file() -> None:
    """A file of nothing but holes, which takes for ever to read."""
    with (OUT / "model.safetensors").open("wb") as stream:
        stream.truncate(2**50)


def many_files() -> None:
    """More files than anybody lists."""
    for number in range(300):
        (OUT / f"folder-{number}").mkdir()
        for other in range(10):
            (OUT / f"folder-{number}" / f"{other}.json").touch()
    time.sleep(60)


def deep_folders() -> None:
    """Deeper than Python recurses."""
    os.chdir(OUT)
    for _ in range(2000):
        os.mkdir("d")
        os.chdir("d")


def links_out() -> None:
    """Hands in somebody else's file."""
    good()
    (OUT / "model.safetensors").unlink()
    (OUT / "model.safetensors").symlink_to("/etc/passwd")


def leaves_a_pipe() -> None:
    """Whoever reads it waits for ever."""
    good()
    (OUT / "config.json").unlink()
    os.mkfifo(OUT / "config.json")


def names_files_elsewhere() -> None:
    """An index of shards that leads out of the folder."""
    good()
    (OUT / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../other/model.safetensors"}}')


def prints() -> None:
    """Three hundred megabytes without a line."""
    for _ in range(300):
        os.write(1, b"x" * 2**20)
    print("\nand this is the end")
    sys.exit(3)


def reports_nonsense() -> None:
    """Reports of every wrong kind, and far too many."""
    with open(os.environ["BRIEF_PROGRESS_FILE"], "a") as stream:
        stream.write('{"event": "step", "tokens": "many", "loss": NaN, "step": -4, "learning_rate": 1e999}\n')
        stream.write("[" * 100_000 + "\n")
        stream.write('{"event": ["step"], "tokens": 1}\n{"event": "scoring", "fraction": 1}\nnot json\n')
        stream.write('{"event": "note", "text": "\\u001b[2Jgone\\n' + "x" * 5000 + '"}\n')
        stream.write('{"event": "note", "text": "again"}\n' * 5000)
        stream.write('{"event": "step", "tokens": 5, "seconds": 1e9}\n' * 5000)
    good()


def ignores_sigterm() -> None:
    """Goes on for ever, having saved nothing."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    report(event="started")
    time.sleep(600)


def ignores_sigterm_with_a_checkpoint() -> None:
    """Goes on for ever, having saved something."""
    save(OUT / "checkpoint-2")
    save(OUT / "checkpoint-10")
    (OUT / "checkpoint-10" / "optimizer.pt").write_bytes(b"state")
    (OUT / "checkpoint-11").mkdir()
    ignores_sigterm()


def saves_when_asked_to_end() -> None:
    """Uses the seconds after SIGTERM."""

    def end(*_: object) -> None:
        good()
        sys.exit(1)

    signal.signal(signal.SIGTERM, end)
    report(event="step", step=1, tokens=10**6)
    time.sleep(600)


def never_says_that_it_began() -> None:
    """Trains on the time that is meant for its start."""
    time.sleep(600)


def takes_memory() -> None:
    """Half a gigabyte, in two processes."""
    os.fork()
    held = bytearray(os.urandom(2**20)) * 256
    time.sleep(60)
    print(len(held))


def writes_nothing() -> None:
    """Says that all is well."""


def fails() -> None:
    """Has saved something, and then fails."""
    save(OUT / "checkpoint-1")
    raise RuntimeError("a bug in my program")


def looks_around() -> None:
    """Prints all that it can see and do, as JSON."""
    run = Path(os.environ["BRIEF_TRAIN_DATA"]).parents[1]
    seen = {
        "environment": dict(os.environ),
        "root": sorted(os.listdir("/")),
        "run": sorted(str(p.relative_to(run)) for p in run.rglob("*") if p.is_file()),
        "processes": [int(name) for name in os.listdir("/proc") if name.isdigit()],
        "working_folder": os.getcwd(),
        "beside": sorted(os.listdir()),
        "capabilities": next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("CapEff")),
        "namespaces": subprocess.run(["unshare", "--user", "true"], stderr=subprocess.DEVNULL).returncode == 0,
        "shared_memory": (size := os.statvfs("/dev/shm")).f_blocks * size.f_frsize,
        "connects": connects(int(os.environ["PORT"])),
        "writes": [str(p) for p in (OUT, Path("/tmp"), SEED, Path.cwd(), Path("/"), run, Path("/dev")) if can_write(p)],
    }
    print(json.dumps(seen))
    good()


def connects(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=2).close()
    except OSError:
        return False
    return True


def can_write(folder: Path) -> bool:
    try:
        (folder / "written").write_text("")
    except OSError:
        return False
    (folder / "written").unlink()
    return True


globals()[sys.argv[1]]()
