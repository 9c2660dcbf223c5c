"""One entry of one round, as it runs in its worker: prepare, run the kind, settle what it left.

This is the one place that turns a competitor's crash into a forfeit, and that tells it from trouble of the
machine, which is nobody's failure: `ClusterTrouble`, to be tried again.
"""

import sys
import time
import traceback
from contextlib import suppress

from cluster.digest import model_sha256
from cluster.errors import ClusterTrouble, Forfeit, machine_trouble
from cluster.store import LOCAL
from cluster.text import plain
from competitors import running
from competitors.capture import captured_output
from competitors.contract import USED_ITS_BUDGET, Brief, Submission
from competitors.events import read_events, reporter
from competitors.failure_words import describe
from competitors.kinds import RESUMES, RUN, STARTS_CLEAN, Recipe
from competitors.output import settle_output
from competitors.untrusted import refuse_odd_files


def compete(brief: Brief, recipe: Recipe) -> Submission:
    """Run a competitor on its brief. Whatever it raises becomes a forfeit with the reason in words.

    With `brief.attempt` above 1 it goes on in the folder of an earlier try, whose process was lost, from what that
    saved, if its kind can; else it starts over. Raises ClusterTrouble for what is no competitor's failure: a disk
    that is full or broken, a seed that is gone, a gang that could not be placed.
    """
    began = time.time()
    try:
        reason = _run(brief, recipe)
    except ClusterTrouble:
        raise
    except Exception as error:  # noqa: BLE001 - a competitor's own code may raise anything at all
        return _failed(brief, recipe.kind, error, began)
    return settle(brief, recipe.kind, reason, began)


def _run(brief: Brief, recipe: Recipe) -> str:
    """Run the kind; how it ended, in words."""
    if brief.attempt > 1:
        _clear_for_another_try(brief, recipe.kind)
    brief.output_dir.mkdir(parents=True, exist_ok=True)
    with captured_output(brief.log_file):
        try:
            report = reporter(brief.progress_file)
            report({"event": "loading"})
            return RUN[recipe.kind](brief, recipe, report) or USED_ITS_BUDGET
        except Exception:
            with suppress(OSError):  # the log may lie on the disk that is full
                traceback.print_exc()
            raise
        finally:
            _clear_memory()


def _clear_for_another_try(brief: Brief, kind: str) -> None:
    """Leave of an earlier try what its kind goes on from, once nothing of that try can write any more."""
    if not running.wait_until_ended(brief.running_file) and running.is_of_this_machine(brief.running_file):
        raise ClusterTrouble(f"{brief.competitor}: processes of an earlier try have not ended")
    LOCAL.remove(brief.running_file)  # of a machine that was lost with them
    LOCAL.remove(brief.stop_file)
    if kind not in RESUMES:
        LOCAL.remove(brief.scratch_dir)
    if kind in STARTS_CLEAN:
        LOCAL.remove(brief.output_dir)
        LOCAL.remove(brief.continuation_dir)


def settle(brief: Brief, kind: str, reason: str, began: float) -> Submission:
    """The submission that lies in the brief's output folder, or a forfeit when nothing valid does.

    Raises ClusterTrouble when the machine does not let it be looked at.
    """
    try:
        # What is settled must not change afterwards: a worker that was killed may have left processes, which end
        # a moment later.
        if not running.wait_until_ended(brief.running_file):
            raise Forfeit(f"its processes had not ended {running.ENDING_SECONDS} seconds later")
        _remove_scratch(brief)
        form = settle_output(brief.output_dir)
        refuse_odd_files(brief.continuation_dir)
        if form is None:
            return forfeit(brief, kind, f"{reason}, and left no valid model", began)
        sha256 = model_sha256(brief.output_dir)
    except Forfeit as odd:
        return forfeit(brief, kind, f"{reason}, and {odd}", began)
    except OSError as error:
        return _failed(brief, kind, error, began)
    return _submission(brief, kind, reason, began).model_copy(
        update={
            "status": "delivered",
            "form": form,
            "sha256": sha256,
            "has_continuation": (brief.continuation_dir / "continuation.json").is_file(),
        }
    )


def forfeit(brief: Brief, kind: str, reason: str, began: float) -> Submission:
    """A submission that says why there is none."""
    _remove_scratch(brief)
    return _submission(brief, kind, reason, began)


def _failed(brief: Brief, kind: str, error: Exception, began: float) -> Submission:
    """A forfeit that says what was raised. ClusterTrouble, in words, where that is the machine's and not its own."""
    needed = [brief.seed_model / "config.json", brief.train_data]
    needed += [ingredient.folder for ingredient in brief.ingredients]
    needed += [brief.slice_data] if brief.slice_data is not None else []
    if (why := machine_trouble(error, needed)) is not None:
        raise ClusterTrouble(plain(f"{brief.competitor}: {why}")) from error
    return forfeit(brief, kind, describe(error), began)


def _submission(brief: Brief, kind: str, reason: str, began: float) -> Submission:
    """What the entry cost, from its own reports; a forfeit until said otherwise."""
    said, lost = {"tokens": 0, "step": 0, "seconds": 0.0}, 0
    for event in read_events(brief.progress_file):
        if event.event == "started" and event.tokens is not None:  # by another try, where one was before
            lost += max(0, int(said["tokens"]) - event.tokens)
        said |= {name: value for name in said if (value := getattr(event, name)) is not None}
    wall = time.time() - began
    return Submission(
        competitor=brief.competitor,
        kind=kind,
        status="forfeit",
        reason=reason,
        seed_sha256=brief.seed_sha256,
        train_tokens=int(said["tokens"]),
        lost_tokens=lost,
        train_steps=int(said["step"]),
        train_seconds=said["seconds"],
        wall_seconds=wall,
        device_seconds=wall * brief.resources.devices,
    )


def _remove_scratch(brief: Brief) -> None:
    with suppress(OSError):  # nobody reads it again, and something may be writing there a moment longer
        LOCAL.remove(brief.scratch_dir)


def _clear_memory() -> None:
    """Give back what a finished entry held, before the same process takes the next."""
    if "torch" in sys.modules:
        import gc

        import torch

        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]  # a coordinator must start none
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
