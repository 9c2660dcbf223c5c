"""The sandbox of kind `command`: what a program can see, and the environment that it gets.

Made with bubblewrap (github.com/containers/bubblewrap, 0.8 or newer): namespaces of its own for processes,
network, mounts and users, no capabilities, and a file system in which only what is listed here exists.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from cluster.text import first_line
from competitors.command.masks import masks
from competitors.contract import Brief

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64")
# Not all of /etc: it holds keys and password hashes.
ETC = (
    "alternatives", "ca-certificates", "crypto-policies", "group", "hosts", "ld.so.cache", "ld.so.conf",
    "ld.so.conf.d", "localtime", "nsswitch.conf", "passwd", "pki/ca-trust", "pki/tls/certs", "ssl/certs",
    "ssl/openssl.cnf",
)  # fmt: skip
ETC_NETWORK = ("resolv.conf", "gai.conf", "protocols", "services")
DEVICES = ("nvidia*", "kfd", "dri")
PASSED_ON = ("LANG", "LC_ALL", "TZ", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")
SEARCH_PATH = f"{Path(sys.prefix) / 'bin'}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
"""`python` is the one that runs the tournament, with its packages."""
TAKEN = ("/", "/tmp", "/etc")
"""Folders that the sandbox has in a form of its own."""
TAKEN_WHOLE = ("/dev", "/proc", "/sys")
"""The same, with all below them: other processes, their memory and what they share."""

ISOLATION = [
    "--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL", "--die-with-parent", "--new-session",
    "--hostname", "sandbox",
]  # fmt: skip


def trouble() -> str | None:
    """Why no sandbox can be made on this machine, in words; None when one can."""
    program = shutil.which("bwrap")
    if program is None:
        return "bubblewrap (bwrap) is not installed on this machine"
    try:
        tried = subprocess.run(
            [program, *ISOLATION, *_system(False, 0, 2**20), "--", "/bin/sh", "-c", ":"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": os.environ.get("PATH", os.defpath)},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap (bwrap) does not run on this machine: {error}"
    if tried.returncode:
        said = first_line(tried.stderr) or f"exit code {tried.returncode}"
        return f"bubblewrap (0.8 or newer is needed) can make no sandbox on this machine: {said}"
    return None


def is_taken(path: Path) -> bool:
    """Whether the sandbox has a form of its own of what lies at `path`."""
    real = path.resolve()
    return str(real) in TAKEN or any(real.is_relative_to(whole) for whole in TAKEN_WHOLE)


def command_line(
    program: list[str],
    brief: Brief,
    folder: Path,
    read: list[Path],
    hide: list[Path],
    scratch: Path,
    network: bool,
    memory_bytes: int,
) -> list[str]:
    """`program` as bubblewrap is to run it: in `folder`, which it can read but for what is to be hidden, and with
    `scratch` as its /tmp."""
    gpus = brief.resources.gpus_where(False)
    # As they really are: a link that stands for one of their parents is not there in the sandbox.
    visible = [path.resolve() for path in (folder, *read)]
    shown = [*visible, *_python(), *_with_link_targets(brief.seed_model), brief.train_data]
    shown += _with_link_targets(brief.seed_continuation) if brief.seed_continuation else []
    hidden = masks([*map(Path, SYSTEM), *shown], visible, [*hide, *_of_this_run(brief, visible), *_of_ray()])
    mounts = [(path, ["--ro-bind", str(path), str(path)]) for path in _without_nested(shown, hidden)]
    folders = [path for path in hidden if path.is_dir()]
    mounts += [(path, ["--tmpfs", str(path)]) for path in folders]
    mounts += [(path, ["--ro-bind", "/dev/null", str(path)]) for path in hidden if path not in folders]
    mounts += [(path, ["--bind", str(path), str(path)]) for path in (brief.output_dir, brief.continuation_dir)
               if path.is_dir()]  # fmt: skip
    # What lies within another folder is mounted after it.
    mounts.sort(key=lambda mount: len(mount[0].parts))
    return [
        shutil.which("bwrap") or "bwrap",
        *(ISOLATION + ["--share-net"] * network),
        *_system(network, gpus, memory_bytes // 2),
        *["--bind", str(scratch), "/tmp"],
        *(word for _, words in mounts for word in words),
        *(word for path in folders for word in ("--remount-ro", str(path))),
        *["--remount-ro", "/", "--chdir", str(folder.resolve()), "--"],
        *program,
    ]


def environment(brief: Brief, home: Path, network: bool, own: dict[str, str]) -> dict[str, str]:
    """All variables that the program gets: few of ours, the brief's, then those of its recipe.

    Nothing of the worker's environment is passed on but what PASSED_ON names, so no token or password is.
    """
    threads = str(max(1, int(brief.resources.cpus)))
    ours = {
        "PATH": SEARCH_PATH,
        "LANG": "C.UTF-8",
        "HOME": str(home),
        "TMPDIR": str(home),
        "OMP_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    ours |= {} if network else {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    ours |= {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    if not brief.resources.gpus_where(True):
        ours["CUDA_VISIBLE_DEVICES"] = ""
    told = {
        "BRIEF": str(home / "brief.json"),
        "BRIEF_PROGRESS_FILE": str(home / "progress.jsonl"),
        "BRIEF_CONTINUATION_DIR": str(brief.continuation_dir) if brief.continuation_dir.is_dir() else "",
    }
    return ours | told | variables(brief.model_dump(mode="json", exclude={"ingredients"}), "BRIEF") | own


def variables(value: Any, name: str) -> dict[str, str]:
    """A record as environment variables: keys of keys joined with _, lists with commas, what is not set empty."""
    if isinstance(value, dict):
        return {k: v for key, inner in value.items() for k, v in variables(inner, f"{name}_{key.upper()}").items()}
    if isinstance(value, list):
        return {name: ",".join(str(item) for item in value)}
    return {name: "" if value is None else str(value)}


def _system(network: bool, gpus: float, shared_memory_bytes: int) -> list[str]:
    """The mounts that every program gets: programs and libraries, little of /etc, its own /proc and /dev."""
    words = []
    for path in map(Path, SYSTEM):
        if path.is_symlink():
            words += ["--symlink", os.readlink(path), str(path)]
        elif path.is_dir():
            words += ["--ro-bind", str(path), str(path)]
    for name in ETC + (ETC_NETWORK if network else ()):
        words += ["--ro-bind-try", f"/etc/{name}", f"/etc/{name}"]
    words += ["--proc", "/proc", "--dev", "/dev"]
    if gpus:
        found = sorted(device for pattern in DEVICES for device in Path("/dev").glob(pattern))
        words += [word for device in found for word in ("--dev-bind-try", str(device), str(device))]
    # The GPU libraries and some CPU ones look the hardware up there.
    words += ["--ro-bind", "/sys", "/sys"] if gpus else ["--ro-bind-try", "/sys/devices/system", "/sys/devices/system"]
    # Without a size of its own a folder in memory could take half of the machine's.
    return [*words, "--size", str(shared_memory_bytes), "--tmpfs", "/dev/shm", "--remount-ro", "/dev"]


def _python() -> list[Path]:
    """The Python that runs this: the environment, and what it was made from."""
    return [path for prefix in (sys.prefix, sys.base_prefix) for path in {Path(prefix), Path(prefix).resolve()}]


def _with_link_targets(folder: Path) -> list[Path]:
    """`folder`, and the files that links in it lead to: in a Hugging Face cache every file is a link."""
    return [folder, *{path.resolve() for path in folder.rglob("*") if path.is_symlink()}]


def _of_this_run(brief: Brief, visible: list[Path]) -> list[Path]:
    """The run directory, and the folder of runs that it lies in where that is no more than a part of what is shown."""
    run = Path(os.path.commonpath([brief.train_data, brief.output_dir]))
    return [run, *(run.parent for v in visible if run.parent != v and run.parent.is_relative_to(v))]


def _of_ray() -> list[Path]:
    """Where the Ray of this machine has its sockets and logs, and the user its token."""
    return [Path(os.environ.get("RAY_TMPDIR", "/tmp")) / "ray", Path.home() / ".ray"]


def _without_nested(paths: list[Path], hidden: list[Path]) -> list[Path]:
    """The paths that are not visible already as part of another one."""

    def shows(outer: Path, path: Path) -> bool:
        between = any(path.is_relative_to(h) and h.is_relative_to(outer) for h in hidden)
        return path != outer and path.is_relative_to(outer) and not between

    every = [*(Path(p) for p in SYSTEM), *paths]
    return [path for path in dict.fromkeys(paths) if not any(shows(outer, path) for outer in every)]
