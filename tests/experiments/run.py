"""`python -m tests.experiments.run [SIZE]`: runs what is not done yet, and writes one JSON file for each run.

Arms that train in one process go side by side, each with one thread; those of Ray Tune one after the other, its trials
side by side. A run that was interrupted begins again; one that is done, here or on record, is not repeated.
"""

import argparse
import fnmatch
import logging
import multiprocessing
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path

from cluster.errors import UserError
from cluster.store import LOCAL
from tests.experiments.results import Key, done, path_of
from tests.experiments.sizes import SIZES, Setting, digest

log = logging.getLogger("experiments")


@dataclass(frozen=True)
class Job:
    """One run: an arm on a setting with a seed. Goes to another process."""

    size: str
    setting: Setting
    seed: int
    arm: str
    side_by_side: int
    keep: bool

    @property
    def result_file(self) -> Path:
        """There when the run is done."""
        return path_of(self.size, self.setting, self.seed, self.arm)

    @property
    def key(self) -> Key:
        """That of its result."""
        return self.setting.name, self.seed, self.arm, digest(self.setting.run_with)

    def __str__(self) -> str:
        return f"{self.setting.name} seed {self.seed} {self.arm}"


def jobs(asked: argparse.Namespace, seed: int) -> Iterator[Job]:
    """The runs of one seed that are not done, in the order of settings and arms; with `again` all of them."""
    from tests.experiments.arms import arms

    size, known = SIZES[asked.size], set() if asked.again else {one.key for one in done(asked.size)}
    for setting in size.settings:
        for name in arms(setting.adapters):
            job = Job(asked.size, setting.usable, seed, name, asked.side_by_side, asked.keep)
            wanted = any(fnmatch.fnmatch(name, pattern) for pattern in size.arms)
            if wanted and fnmatch.fnmatch(f"{setting.name}/{name}", asked.only) and job.key not in known:
                yield job


def do(job: Job) -> str:
    """Run one, write its result, and say in a line what came of it."""
    from tests.experiments.arms import arms, measured
    from tests.experiments.cells import Cell

    quiet()
    cell = Cell(job.setting, job.seed, job.result_file.parent / "cell", job.side_by_side)
    with LOCAL.locked(job.result_file.parent / "cell.lock", wait=True):
        cell.make()
    work = job.result_file.with_suffix(".work")
    LOCAL.remove(work)
    work.mkdir(parents=True)
    result = measured(arms(job.setting.adapters)[job.arm], job.arm, cell, work, time.monotonic)
    result.write(job.result_file)
    if not job.keep:
        LOCAL.remove(work)
    return (
        f"{job}: test {result.test:.4f}, validation {result.validation:.4f}; {result.tokens} tokens, padded"
        f" {result.padded_tokens}; {result.seconds:.0f} s; {result.chosen}"
    )


def quiet() -> None:
    """Nothing but our own lines."""
    import warnings

    import transformers

    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()


def main() -> None:
    """Run what is left of a size."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("size", nargs="?", default="small", choices=SIZES)
    parser.add_argument("--only", default="*", help="setting/arm, as a glob")
    parser.add_argument("--side-by-side", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--seed", type=int, help="this one only")
    parser.add_argument("--again", action="store_true", help="also what is done: its new result takes the place")
    parser.add_argument("--keep", action="store_true", help="keep the folders that the arms work in")
    asked = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    log.setLevel(logging.INFO)
    failed = 0
    for seed in SIZES[asked.size].seeds if asked.seed is None else [asked.seed]:
        try:
            todo = list(jobs(asked, seed))
        except UserError as error:
            sys.exit(str(error))
        failed += _run_seed(todo, asked.side_by_side)
    if failed:
        sys.exit(f"{failed} runs failed; the same command tries them again")


def _run_seed(todo: list[Job], side_by_side: int) -> int:
    """How many failed."""
    from tests.experiments.arms import arms

    on_ray = [job for job in todo if arms(job.setting.adapters)[job.arm].on_ray]
    here = [job for job in todo if job not in on_ray]
    failed = 0
    # Fresh processes, kept for many runs: importing torch and TRL takes seconds. Each with one thread.
    os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}
    with ProcessPoolExecutor(side_by_side, multiprocessing.get_context("spawn")) as pool:
        futures = {pool.submit(do, job): job for job in here}
        for future in as_completed(futures):
            if (error := future.exception()) is None:
                log.info(future.result())
            else:
                failed += 1
                log.error("%s failed", futures[future], exc_info=error)
    for job in on_ray:
        log.info(do(job))
    return failed


if __name__ == "__main__":
    main()
