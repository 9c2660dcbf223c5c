"""One entry of one round, as it runs in its worker: prepare, run the kind, settle what it left.

This is the one place that turns a competitor's crash into a forfeit.
"""

import logging
import shutil
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from cluster.digest import model_sha256
from cluster.errors import ClusterTrouble, Forfeit
from competitors.contract import Brief, Submission, read_events, reporter, settle_output
from competitors.failures import describe
from competitors.kinds import RUN, Recipe
from competitors.untrusted import refuse_odd_files

ENDING_SECONDS = 60


def compete(brief: Brief, recipe: Recipe) -> Submission:
    """Run a competitor on its brief. Whatever it raises becomes a forfeit with the reason in words.

    Raises ClusterTrouble when a gang's processes could not be placed: no competitor's failure.
    """
    brief.output_dir.mkdir(parents=True, exist_ok=True)
    report = reporter(brief.progress_file)
    began = time.time()
    reason = "used its budget"
    with captured_output(brief.log_file):
        try:
            report({"event": "loading"})
            reason = RUN[recipe.kind](brief, recipe, report) or reason
        except ClusterTrouble:
            raise
        except Exception as error:  # noqa: BLE001 - a competitor's own code may raise anything at all
            traceback.print_exc()
            return forfeit(brief, recipe.kind, describe(error), began)
        finally:
            _clear_memory()
    return settle(brief, recipe.kind, reason, began)


def settle(brief: Brief, kind: str, reason: str, began: float) -> Submission:
    """The submission that lies in the brief's output folder, or a forfeit when nothing valid does."""
    try:
        _wait_for_its_processes(brief)
        shutil.rmtree(brief.scratch_dir, ignore_errors=True)
        form = settle_output(brief.output_dir)
        refuse_odd_files(brief.continuation_dir)
    except Forfeit as odd:
        return forfeit(brief, kind, f"{reason}, and {odd}", began)
    if form is None:
        return forfeit(brief, kind, f"{reason}, and left no valid model", began)
    return _submission(brief, kind, began).model_copy(
        update={
            "status": "delivered",
            "reason": reason,
            "form": form,
            "sha256": model_sha256(brief.output_dir),
            "has_continuation": (brief.continuation_dir / "continuation.json").is_file(),
        }
    )


def _wait_for_its_processes(brief: Brief) -> None:
    """What is settled must not change afterwards: a worker that was killed may have left processes, which end
    a moment later."""
    deadline = time.monotonic() + ENDING_SECONDS
    while brief.running_file.exists():
        if time.monotonic() > deadline:
            raise Forfeit(f"its processes had not ended {ENDING_SECONDS} seconds later")
        time.sleep(0.05)


def forfeit(brief: Brief, kind: str, reason: str, began: float) -> Submission:
    """A submission that says why there is none."""
    shutil.rmtree(brief.scratch_dir, ignore_errors=True)
    return _submission(brief, kind, began).model_copy(update={"reason": reason})


def _submission(brief: Brief, kind: str, began: float) -> Submission:
    """What the entry cost, from its own reports; a forfeit until said otherwise."""
    events = read_events(brief.progress_file)
    last = {key: event[key] for event in events for key in ("tokens", "step", "seconds") if key in event}
    wall = time.time() - began
    held = brief.resources
    devices = (held.gpus if isinstance(held.gpus, float | int) and held.gpus else held.cpus) * held.workers
    return Submission(
        competitor=brief.competitor,
        kind=kind,
        status="forfeit",
        reason="",
        seed_sha256=brief.seed_sha256,
        train_tokens=int(last.get("tokens", 0)),
        train_steps=int(last.get("step", 0)),
        train_seconds=float(last.get("seconds", 0.0)),
        wall_seconds=wall,
        device_seconds=wall * devices,
    )


@contextmanager
def captured_output(path: Path) -> Iterator[None]:
    """Send prints and log records to the entry's own log.txt."""
    with path.open("a", encoding="utf-8", buffering=1) as stream:
        handler = logging.StreamHandler(stream)
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
        root = logging.getLogger()
        level = root.level
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        try:
            with redirect_stdout(stream), redirect_stderr(stream):
                yield
        finally:
            root.removeHandler(handler)
            root.setLevel(level)


def _clear_memory() -> None:
    """Give back what a finished entry held, before the same process takes the next."""
    if "torch" in sys.modules:
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # a coordinator must start none
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
