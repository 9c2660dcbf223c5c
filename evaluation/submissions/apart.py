"""A process of its own for looking at a submission: with limits, and without anything that could run its code.

Both ends are here. The parent, an evaluator, passes what the seed asks; the child limits itself before it opens the
first file, and answers with findings, a reason, or trouble of the storage. What exceeds a limit is the submission's
own failure; a child that ends without an answer is an error that nobody expected, and is passed on as one.
"""

import json
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cluster.errors import Forfeit, storage_trouble
from cluster.text import last_line, plain
from evaluation.submissions.asked import Asked
from evaluation.submissions.examination import Findings, Form, examine

MEMORY = 2 * 2**30
"""Bytes of address space: NumPy with its libraries takes a quarter of it, pieces of weights a little more."""
SECONDS, BYTES_PER_SECOND = 120.0, 10 * 2**20
"""How long it may take, and how much more for the bytes of a model."""
OPEN_FILES = 128
ROOT = Path(__file__).parents[2]
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def examine_apart(
    folder: Path, form: Form, asked: Asked, hub_links: bool = False, memory: int = MEMORY, seconds: float | None = None
) -> Findings:
    """As `examine`, in a process of its own, within `memory` bytes and `seconds`. Forfeit where it exceeds them."""
    folder = folder.absolute()  # the other process works elsewhere
    allowed = seconds or SECONDS + asked.most_bytes / BYTES_PER_SECOND
    task = pickle.dumps((folder, form, asked, hub_links, memory, allowed))
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    try:
        done = subprocess.run(
            [sys.executable, "-m", "evaluation.submissions.apart"],
            input=task,
            capture_output=True,
            timeout=allowed,
            check=False,
            cwd=ROOT,
            env={"PATH": os.environ.get("PATH", ""), "PYTHONPATH": path, **ONE_THREAD},
        )
    except subprocess.TimeoutExpired as error:
        raise Forfeit(f"its inspection took more than {allowed:.0f} s") from error
    if done.returncode or not done.stdout:
        said = plain(last_line(done.stderr.decode(errors="replace")))
        raise RuntimeError(f"the inspection ended with code {done.returncode} and without an answer: {said}")
    return _answer(json.loads(done.stdout))


def _answer(answer: Mapping[str, Any]) -> Findings:
    if "forfeit" in answer:
        raise Forfeit(plain(answer["forfeit"]))
    if "storage" in answer:
        raise OSError(*answer["storage"])
    return Findings(**answer["findings"])


def _limit(memory: int, seconds: float) -> None:
    for what, limit in (
        (resource.RLIMIT_AS, memory),
        (resource.RLIMIT_CPU, int(seconds) + 1),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, OPEN_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(what, (limit, limit))


def main() -> None:
    """The child."""
    folder, form, asked, hub_links, memory, seconds = pickle.load(sys.stdin.buffer)
    _limit(memory, seconds)
    answer: dict[str, Any]
    try:
        answer = {"findings": asdict(examine(folder, form, asked, hub_links))}
    except Forfeit as reason:
        answer = {"forfeit": str(reason)}
    except MemoryError:
        answer = {"forfeit": f"needs more than {memory / 2**30:.1f} GiB of memory to be looked at"}
    except OSError as error:
        if storage_trouble(error) is None:
            raise
        answer = {"storage": [error.errno, os.strerror(error.errno or 0), str(error.filename or "")]}
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
