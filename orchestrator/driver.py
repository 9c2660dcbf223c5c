"""Running a tournament from end to end: prepare, connect to Ray, run the loop, keep the views up to date.

The views (leaderboard.json, report.html, MLflow) are drawn from the run directory, now and then while the
tournament runs and once at its end. None of them is needed to go on.
"""

import asyncio
import importlib.metadata
import json
import logging
import os
import platform
import shutil
import signal
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import TournamentError, UserError
from cluster.store import LOCAL
from orchestrator.config import TournamentConfig
from orchestrator.planning import memory, model_sources
from orchestrator.record.run_directory import RunDirectory
from orchestrator.views import leaderboard
from orchestrator.views.leaderboard import Leaderboard, State
from orchestrator.views.live import Board

if TYPE_CHECKING:
    from cluster.ray_workers import Pool
    from orchestrator.tracking.sync import Tracker

log = logging.getLogger(__name__)

VIEW_SECONDS = 3.0
WORKER_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    # Hugging Face libraries try the network on every load unless told not to; seeds are local folders.
    "HF_HUB_OFFLINE": "1",
}
RECORDED_PACKAGES = ("ray", "torch", "transformers", "trl", "peft", "datasets", "accelerate", "mlflow", "numpy")


def run_tournament(
    config: TournamentConfig,
    config_file: Path,
    run: RunDirectory,
    address: str | None,
    board: Board,
    pool: "Pool | None" = None,
) -> Leaderboard:
    """Start a tournament, or go on with it. Returns the leaderboard when every round is on record.

    With `pool`, whose Ray the program is connected to, its workers are used and stay warm for another tournament.

    Raises UserError for what the user has to mend, ClusterTrouble or KeyboardInterrupt when it stopped and
    the same call goes on with it.
    """
    with run.locked():
        prepare(config, config_file, run)
        config = run.with_changes(config)
        from orchestrator.tracking.sync import Tracker

        tracker = Tracker(config, run)
        tracker.open()
        state: State = "stopped"
        try:
            if not leaderboard.is_finished(config, run):
                _run_rounds(config, config_file.parent, run, address, board, tracker, pool)
            state = "finished"
        finally:
            result = write_views(config, run, state)
            tracker.close(state)
    return result


def prepare(config: TournamentConfig, config_file: Path, run: RunDirectory) -> None:
    """Everything that can be wrong with the config and the data is found here, before Ray starts."""
    run.check(config)
    check_inputs(config, config_file)
    if not run.config_file.is_file():
        shutil.rmtree(run.data, ignore_errors=True)
        make_data(config, config_file, run.data)
        _download_models(config, config_file, run)
        LOCAL.write_text(run.environment_file, json.dumps(environment(), indent=1) + "\n")
        run.adopt(config)


def check_inputs(config: TournamentConfig, config_file: Path) -> None:
    """UserError for a base or a reference that is no model, or a recipe whose programs are not there."""
    for lineage in config.lineages:
        model_sources.check(lineage.base, config_file.parent, f"{config_file}: lineages[{lineage.name}].base")
    for reference in config.references:
        if reference.model is not None:
            key = f"{config_file}: references[{reference.name}].model"
            model_sources.check(reference.model, config_file.parent, key)
    for recipe in config.competitors:
        try:
            recipe.located(config_file.parent).check()
        except UserError as error:
            raise UserError(f"{config_file}: competitors[{recipe.name}].{error}") from error


def _download_models(config: TournamentConfig, config_file: Path, run: RunDirectory) -> None:
    """Fetch hub models to where every node finds them, before anything is placed."""
    named = [(f"lineages[{x.name}].base", x.base) for x in config.lineages]
    named += [(f"references[{r.name}].model", r.model) for r in config.references if r.model]
    for key, spec in named:
        where = f"{config_file}: {key}"
        if not spec.startswith(model_sources.BUILTIN) and model_sources.check(spec, config_file.parent, where) is None:
            model_sources.download(spec, run.model(spec), where)


def make_data(config: TournamentConfig, config_file: Path, out: Path) -> None:
    """Load the config's data and write its splits to `out`. UserError for whatever is wrong with it."""
    from evaluation import sources
    from evaluation.splits import make_splits

    data = config.data
    try:
        rows = sources.load(data.source, config_file.parent)
        source = data.source if isinstance(data.source, str) else ", ".join(data.source)
        templates = (data.prompt, data.completion)
        make_splits(rows, *templates, data.validation, data.test, config.seed, out, source, config.slice_rows)
    except UserError as error:
        raise UserError(f"{config_file}: {error}") from error


def write_views(config: TournamentConfig, run: RunDirectory, state: State) -> Leaderboard:
    """leaderboard.json, and report.html where it would say something else."""
    from orchestrator.views.report import write_report

    config = run.with_changes(config)
    before = run.leaderboard_file.read_text(encoding="utf-8") if run.leaderboard_file.exists() else None
    board = leaderboard.write(config, run, state)
    if run.leaderboard_file.read_text(encoding="utf-8") != before or not run.report_file.exists():
        write_report(config, run, state)
    return board


def _run_rounds(
    config: TournamentConfig,
    config_folder: Path,
    run: RunDirectory,
    address: str | None,
    board: Board,
    tracker: "Tracker",
    pool: "Pool | None",
) -> None:
    from cluster.connect import connected
    from cluster.machine import largest_machine, machine_here
    from cluster.ray_workers import Pool
    from orchestrator.tournament import Tournament

    stopped: list[bool] = []

    async def drive(has_gpus: bool) -> None:
        workers = pool or Pool(WORKER_ENVIRONMENT)
        views = asyncio.create_task(_keep_views(config, run, tracker))
        task = asyncio.current_task()
        assert task is not None

        def stop() -> None:
            stopped.append(True)
            task.cancel()

        # `ray job stop` sends SIGTERM, which Ray's own handler would answer with a stack trace.
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
        try:
            await Tournament(config, run, config_folder, workers, board, has_gpus).run()
        finally:
            views.cancel()
            if pool is None:
                workers.close()

    board.say("starting Ray")
    address = address or config.cluster.address
    here = (address or os.environ.get("RAY_ADDRESS") or "local") == "local"
    with connected(address) as resources:
        board.say(
            f"on {resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs; starting the first workers"
        )
        machine = machine_here() if here else largest_machine()
        for line in memory.warnings(config, config_folder, machine):
            board.say(f"warning: {line}")
        try:
            with board.shown():
                asyncio.run(drive(resources.get("GPU", 0) > 0))
        except asyncio.CancelledError as error:
            raise KeyboardInterrupt from error
        except BaseExceptionGroup as group:
            # What breaks while everything is being cancelled is not why it stopped.
            raise (KeyboardInterrupt() if stopped else _first(group)) from group


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error of a group that a person should read: ours if there is one."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((e for e in leaves if isinstance(e, TournamentError)), leaves[0])


async def _keep_views(config: TournamentConfig, run: RunDirectory, tracker: "Tracker") -> None:
    """Bring the views up to date every few seconds, off the loop."""
    while True:
        await asyncio.sleep(VIEW_SECONDS)
        await asyncio.to_thread(write_views, config, run, "running")
        await asyncio.to_thread(tracker.sync, "running")


def environment() -> dict[str, Any]:
    """What this run was made with: git commit, package versions, the driver's hardware."""
    import psutil

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpus": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "git_commit": _git_commit(),
        "packages": {name: importlib.metadata.version(name) for name in RECORDED_PACKAGES},
    }


def _git_commit() -> str | None:
    try:
        result = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40"],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):  # installed from a wheel, or no git
        return None
    return result.stdout.strip()
