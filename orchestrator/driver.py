"""Running a tournament from end to end: prepare, find workers, run the loop, have observers told.

What observers draw (leaderboard.json, report.html, MLflow) follows from the run directory. None of it is needed to
go on.
"""

import asyncio
import json
import os
import signal
import uuid
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cluster.errors import TournamentError, UserError
from cluster.machine import machine_here
from cluster.resources import Shape
from orchestrator.config.loading import with_uri_of_environment
from orchestrator.config.tournament import TournamentConfig
from orchestrator.delivery import Delivery
from orchestrator.environment import environment, gone_on
from orchestrator.observers import observers
from orchestrator.planning import memory, power
from orchestrator.planning.budget import Ground, check_budget, refuse_hours_without_gpus
from orchestrator.planning.place import cluster_of
from orchestrator.planning.preparation import bring_models, check_inputs, fetch_tasks, make_data
from orchestrator.record.changes import still_needed, take_in
from orchestrator.record.events import Noted, Observer
from orchestrator.record.run_directory import RunDirectory, read_json
from orchestrator.record.snapshot import Snapshot, SnapshotReader
from orchestrator.rounds.opening import refuse_impossible

if TYPE_CHECKING:
    from cluster.workers import Workers

WORKER_ENVIRONMENT = {
    "TOKENIZERS_PARALLELISM": "false",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TRANSFORMERS_VERBOSITY": "error",
    # Hugging Face libraries try the network on every load unless told not to; seeds are local folders.
    "HF_HUB_OFFLINE": "1",
}

DRAWN_AGAIN = ("leaderboard.json", "report.html", "mlflow.json", "events.jsonl")
"""What of a run directory follows from the rest, or from MLflow."""
OF_OUR_OWN = (None, "local")
"""Addresses that mean a Ray of our own on this machine."""


def run_tournament(
    config: TournamentConfig,
    config_file: Path,
    run: RunDirectory,
    address: str | None = None,
    watching: Sequence[Observer] = (),
    workers: "Workers | None" = None,
) -> Snapshot:
    """Start a tournament, or go on with it. Returns what is on record when every round is.

    With `workers` these are used, and stay as they are for another tournament; else Ray's at `address`. `watching`
    are told what happens too, beside the observers that every tournament has.

    Raises UserError for what the user has to mend, ClusterTrouble or KeyboardInterrupt when it stopped and
    the same call goes on with it.
    """
    address = address or config.cluster.address or os.environ.get("RAY_ADDRESS")
    with run.locked(), ExitStack() as stack:
        run = stack.enter_context(_stored(config, run))
        config, asked = _tracked(config, run), []
        if run.config_file.is_file():
            with run.changing():
                asked = take_in(run)  # what has ended may have been extended
        if workers is None and address not in OF_OUR_OWN and not (run.config_file.is_file() and _is_finished(run)):
            stack.enter_context(_joined(address, config, run))  # not only when all data are split and models are here
        ground = None if run.config_file.is_file() else _ground(config, address, workers)
        is_finished = prepare(config, config_file, run, ground)
        config, reader = run.with_changes(config), SnapshotReader(run)
        everybody = Delivery([*watching, *observers(config, run)])

        async def drive() -> None:
            async with everybody.serving():
                for words in asked:
                    everybody.tell(Noted(words))
                if not is_finished:
                    await _run_rounds(config, config_file.parent, run, address, everybody, workers)
                everybody.end("finished")

        try:
            asyncio.run(drive())
        except asyncio.CancelledError as error:
            raise KeyboardInterrupt from error
        return reader.read()


def prepare(config: TournamentConfig, config_file: Path, run: RunDirectory, ground: Ground | None = None) -> bool:
    """Everything that can be wrong with the config and the data is found here, before Ray starts. Without a `ground`
    it is not asked whether a new run's whole budget is enough. Whether every round is on record already."""
    run.check(config)
    check_inputs(still_needed(run.with_changes(config), run), config_file)
    if run.config_file.is_file():
        run.sweep()
        is_finished = _is_finished(run)
        if not is_finished:
            recorded = read_json(run.environment_file)
            if (changed := gone_on(recorded, environment())) != recorded:
                _write_environment(run, changed)
        with run.changing():
            if (now := run.with_changes(config)) != run.config:  # what may change did
                run.adopt(now)
        return is_finished
    run.clear()
    if ground is not None:
        refuse_hours_without_gpus(config, ground.has_gpus, config_file)
    make_data(config, config_file, run.data)
    if ground is not None:
        check_budget(config, config_file, run.data, ground)
    fetch_tasks(config, config_file, run.own_tasks)
    bring_models(config, config_file, run.model)
    for path in (run.data, run.model("").parent):
        run.store.keep(path)
    _write_environment(run, {"run_id": uuid.uuid4().hex, **environment()})
    run.adopt(config)
    return False


def _tracked(config: TournamentConfig, run: RunDirectory) -> TournamentConfig:
    """With the store that the run began with, or else MLflow's own variable, where the config names none."""
    if config.tracking.uri is not None:
        return config
    if not run.config_file.is_file():
        return with_uri_of_environment(config)
    uri = run.config.tracking.uri
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": uri})})


def _ground(config: TournamentConfig, address: str | None, workers: "Workers | None") -> Ground:
    """That of `workers`, of this machine, or of the cluster that was joined."""
    if workers is None and address in OF_OUR_OWN:
        cluster = cluster_of(config, machine_here())
        return Ground(cluster.has_gpus, cluster.room)
    if workers is None:
        from cluster.on_ray.ray_workers import RayWorkers

        workers = RayWorkers()
    there = workers
    return Ground(there.has_gpus, lambda worker: there.room(Shape.of("trainer", worker, there.has_gpus)))


def _write_environment(run: RunDirectory, content: dict[str, Any]) -> None:
    run.store.write_text(run.environment_file, json.dumps(content, indent=1) + "\n")


async def _run_rounds(
    config: TournamentConfig,
    config_folder: Path,
    run: RunDirectory,
    address: str | None,
    everybody: Delivery,
    workers: "Workers | None",
) -> None:
    """Run the rounds that are left, on `workers` or on Ray's. KeyboardInterrupt where SIGTERM ends it."""
    from orchestrator.tournament import Tournament

    is_stopped = False
    task = asyncio.current_task()
    assert task is not None

    def stop() -> None:
        nonlocal is_stopped
        is_stopped = True
        task.cancel()

    # `ray job stop` sends SIGTERM, which Ray's own handler would answer with a stack trace.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop)
    with ExitStack() as stack:
        if workers is None:
            everybody.tell(Noted("starting Ray" if address in OF_OUR_OWN else f"joined the Ray cluster at {address}"))
            await asyncio.sleep(0)  # so that this is said before it takes its seconds
            workers = stack.enter_context(_on_ray(config, config_folder, run, address, everybody))
        if config.cluster.bucket is not None:
            workers = _staged(workers, run)
        try:
            await Tournament(config, run, config_folder, workers, everybody.tell).run()
        except BaseExceptionGroup as group:
            # What breaks while everything is being cancelled is not why it stopped.
            raise (KeyboardInterrupt() if is_stopped else _first(group)) from group


@contextmanager
def _stored(config: TournamentConfig, run: RunDirectory) -> Iterator[RunDirectory]:
    """The run directory; one that is kept in an object store as a working copy of what is there, while the block lasts.

    UserError where the store cannot be used, or another driver is at it.
    """
    if config.cluster.bucket is None:
        yield run
        return
    from cluster.bucket.store_probe import open_store
    from cluster.bucket.working_copy import WorkingCopy

    copy = WorkingCopy(run.root, open_store(_url(config, run)), DRAWN_AGAIN).open()
    try:
        yield RunDirectory(run.root, copy)
    finally:
        copy.close()


def _url(config: TournamentConfig, run: RunDirectory) -> str:
    return f"{(config.cluster.bucket or '').rstrip('/')}/{run.root.name}"


def on_record(config: TournamentConfig, run_dir: Path) -> TournamentConfig | None:
    """The config of the run that goes on, which lies here or in the config's bucket; None of one that begins."""
    run = RunDirectory(run_dir)
    if not run.config_file.is_file() and config.cluster.bucket is not None:
        try:
            run = RunDirectory.at(_url(config, run))
        except UserError:  # nothing lies there; what else is wrong with a store is said when it is opened to be written
            return None
    return run.config if run.config_file.is_file() else None


def _staged(workers: "Workers", run: RunDirectory) -> "Workers":
    """The same for machines that share no disk with this one."""
    from cluster.bucket.staged_workers import StagedWorkers
    from cluster.bucket.working_copy import WorkingCopy

    assert isinstance(run.store, WorkingCopy)
    return StagedWorkers(workers, run.store)


def _proof(config: TournamentConfig, run: RunDirectory) -> Path | str:
    """By what a node shows that it can get at the run's files."""
    return run.lock_file if config.cluster.bucket is None else _url(config, run)


@contextmanager
def _joined(address: str, config: TournamentConfig, run: RunDirectory) -> Iterator[None]:
    """Be connected to the cluster at `address`. UserError where there is none, a node cannot do our work, or none could
    ever hold what the config asks for."""
    from cluster.on_ray.connect import connected
    from cluster.on_ray.fitness import unfit_nodes
    from cluster.on_ray.ray_workers import RayWorkers

    with connected(address):
        if unfit := unfit_nodes(_proof(config, run)):
            raise UserError(f"the Ray cluster at {address}: {'; '.join(unfit)}")
        refuse_impossible(still_needed(run.with_changes(config), run), run, RayWorkers())
        yield


@contextmanager
def _on_ray(
    config: TournamentConfig, config_folder: Path, run: RunDirectory, address: str | None, everybody: Delivery
) -> "Iterator[Workers]":
    """Workers of a Ray of our own, or of the cluster that was joined, while the block lasts; says what there is, and
    what will not fit."""
    from cluster.on_ray.connect import connected
    from cluster.on_ray.nodes import largest_machine
    from cluster.on_ray.ray_workers import RayWorkers

    is_here = address in OF_OUR_OWN
    with connected(address if is_here else None) as resources:
        cpus, gpus = resources.get("CPU", 0), resources.get("GPU", 0)
        everybody.tell(Noted(f"on {cpus:g} CPUs and {gpus:g} GPUs; starting the first workers"))
        machine = machine_here() if is_here else largest_machine()
        few = power.too_few_rows(config, power.groups_that_prove(run.data))
        for line in [*memory.warnings(config, config_folder, machine, is_here), *few]:
            everybody.tell(Noted(f"warning: {line}"))
        workers = RayWorkers(WORKER_ENVIRONMENT, _proof(config, run))
        try:
            yield workers
        finally:
            workers.close()


def _is_finished(run: RunDirectory) -> bool:
    return SnapshotReader(run).read().is_finished


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The one error of a group that a person should read: ours if there is one."""
    leaves: list[BaseException] = []
    for error in group.exceptions:
        leaves.append(_first(error) if isinstance(error, BaseExceptionGroup) else error)
    return next((e for e in leaves if isinstance(e, TournamentError)), leaves[0])
