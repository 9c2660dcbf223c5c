"""`tournament plan`: what would run, what it needs, and what could not be checked. Nothing is trained.

Works without GPU, network or weights: what is not here is said to be unchecked, never guessed.
"""

import os
import tempfile
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from cluster.cluster_file import nodes_of, read_cluster
from cluster.errors import UserError
from cluster.machine import Machine, largest_of, machine_here
from cluster.placement import Node, Nodes, refusal
from cluster.records import Record
from evaluation.data.sources import HUB
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.roster import Roster
from orchestrator.planning import model_sources
from orchestrator.planning.allocated import PlannedAllocation, allocation_table, in_words, plan_allocation
from orchestrator.planning.disk import Disk, disk
from orchestrator.planning.disk import in_words as disk_in_words
from orchestrator.planning.known_shapes import KNOWN
from orchestrator.planning.memory import ASSUMPTIONS, Estimate, estimate_entry, trains_on_gpu, warnings
from orchestrator.planning.model_shape import describe_base
from orchestrator.planning.power import Power, power_of, too_few_rows
from orchestrator.planning.power import in_words as power_in_words
from orchestrator.planning.preparation import check_inputs, make_data
from orchestrator.planning.schedule import Schedule, equal_rounds, races_in_vain, schedule
from orchestrator.planning.schedule import in_words as schedule_in_words
from orchestrator.planning.usage import Cluster, assumption
from orchestrator.planning.usage import in_words as usage_in_words


class PlannedEntry(Record):
    """One competitor in one lineage, per round."""

    lineage: str
    competitor: str
    kind: str
    recipe: str
    workers: int
    cpus: float
    gpus: float | str
    memory_gb: float | None
    """Estimated peak per worker; None where it could not be estimated."""
    memory_parts: Estimate | None = None
    needs_gpu: str | None = None
    """Why it forfeits without a GPU; None where it does not."""


class Plan(Record):
    """What `tournament plan --json` prints."""

    tournament: str
    lineages: list[str]
    references: list[str]
    rounds: int
    entries: list[PlannedEntry]
    trainings: int
    training_tokens: int | None
    """Upper bound over the whole tournament; None without a token budget."""
    allocations: list[PlannedAllocation] = []
    """How a whole budget is shared out in each lineage; empty where each round and entry has its own."""
    training_hours: float | None
    """Upper bound for training, all entries one after the other; None without a budget of minutes."""
    gpu_hours: float | None
    """The same by the GPUs that they hold; None also where there is none."""
    schedule: Schedule | None
    """On the cluster; None where it is not known which, or what of a whole budget each round gets."""
    disk: Disk | None = None
    """Of the run directory; None where a model's shape is not known, or what of a whole budget each round gets."""
    power: Power
    """What gain these rows can prove."""
    warnings: list[str]
    assumptions: list[str]
    unchecked: list[str]
    placement: list[str]
    """What the cluster cannot place, or that it can place everything; empty where no cluster was asked."""


def make_plan(
    config: TournamentConfig, config_file: Path, address: str | None, cluster_file: Path | None = None
) -> Plan:
    """The plan of `config`, on the cluster at `address` or on paper. UserError for what is wrong with it, as `run`."""
    check_inputs(config, config_file)
    unchecked = [*_unchecked_models(config, config_file), *_unchecked_data(config, config_file)]
    if cluster_file is not None:
        placement, machine, cluster = _on_paper(config, cluster_file)
    else:
        placement, machine, cluster = _placement(config, address) if address else ([], *_machine_of(config))
    entries = [
        _entry(config, config_file, machine, lineage.name, lineage.base, index)
        for lineage in config.lineages
        for index in range(len(config.competitors))
    ]
    if config.budget.total_gpu_hours is not None and machine is not None and not machine.gpus:
        raise UserError(f"{config_file}: budget.total_gpu_hours: there is no GPU here; give total_tokens")
    allocations: list[PlannedAllocation] = []
    if config.is_allocated and not _data_away(config):
        allocations, unknown = plan_allocation(config, config_file, cluster)
        unchecked += unknown
    training = [recipe for recipe in config.competitors if recipe.trains]
    trainings = len(training) * len(config.lineages) * config.all_rounds
    if config.is_allocated:  # a race and a line, where no more is known
        trainings = (len(training) + config.rounds - 1) * len(config.lineages)
    if allocations:
        trainings = sum(row.trainings for one in allocations for row in one.rounds)
    has_gpus = machine is None or machine.gpus > 0
    gpus = sum(recipe.resources.gpus_where(has_gpus) * recipe.resources.workers for recipe in training)
    hours = None if config.budget.minutes is None else config.budget.minutes / 60
    per_round = len(config.lineages) * config.all_rounds
    assumptions = [
        "hours and tokens are upper bounds: budgets used up, start-up and scoring not counted",
        *ASSUMPTIONS,
    ]
    if any(recipe.resources.gpus == "auto" for recipe in config.competitors):
        assumptions.append("an entry without resources.gpus takes one GPU where the cluster has any")
    shapes = {one.name: describe_base(one.base, config_file.parent) for one in config.lineages}
    rounds = _rounds(config, has_gpus, allocations)
    scheduled = None
    if cluster is not None and rounds is not None:
        scheduled = schedule([(rounds[name], shape) for name, shape in shapes.items()], cluster, config.cluster.prices)
    in_vain = [] if cluster is None else races_in_vain(config, cluster)
    kind = cluster.gpu_kind if cluster else None
    by_tokens = config.budget.tokens is not None or config.budget.total_tokens is not None
    if kind and by_tokens and scheduled is not None and scheduled.hours is not None:
        assumptions.append(assumption(kind))
    if machine is None or (machine.gpus and not machine.gpu_memory_gb):
        unchecked.append("whether each entry's memory is there: that of the cluster's GPUs is not known here")
    if not address and cluster_file is None:
        unchecked.append("whether a cluster can place this: none was named (--address)")
    return Plan(
        tournament=config.name,
        lineages=[f"{lineage.name}: {lineage.base}" for lineage in config.lineages],
        references=[f"{r.name}: {r.model or 'published, drawn only'}" for r in config.references],
        rounds=config.all_rounds,
        entries=entries,
        allocations=allocations,
        trainings=trainings,
        training_tokens=_tokens_in_all(config, trainings),
        training_hours=None if hours is None else hours * trainings,
        gpu_hours=None if hours is None or not gpus else gpus * hours * per_round,
        schedule=scheduled,
        disk=None if rounds is None else disk(config, config_file.parent, rounds, shapes),
        power=power_of(config),
        warnings=[
            *warnings(config, config_file.parent, machine),
            *too_few_rows(config),
            *_too_dear(config, scheduled),
            *in_vain,
        ],
        assumptions=assumptions,
        unchecked=unchecked,
        placement=placement,
    )


def _rounds(
    config: TournamentConfig, has_gpus: bool, allocations: list[PlannedAllocation]
) -> dict[str, list[Roster]] | None:
    """Who enters the rounds of each lineage; None where that is not known."""
    if not config.is_allocated:
        return {one.name: equal_rounds(config, one.name, has_gpus) for one in config.lineages}
    rounds = {one.lineage: one.rosters for one in allocations}
    return rounds if rounds.keys() == {one.name for one in config.lineages} else None


def _too_dear(config: TournamentConfig, scheduled: Schedule | None) -> list[str]:
    limit, cost = config.limits.cost, scheduled.cost if scheduled else None
    if limit is None or cost is None or cost <= limit:
        return []
    return [f"limits.cost: {limit:,.2f} stops it before its end: it may cost {cost:,.2f}"]


def _machine_of(config: TournamentConfig) -> tuple[Machine, Cluster] | tuple[None, None]:
    """This machine where the tournament would start a Ray of its own on it; nothing where a cluster is meant."""
    if config.cluster.address not in (None, "local") or "RAY_ADDRESS" in os.environ:
        return None, None
    here = machine_here()
    amounts = {"CPU": here.cpus, "GPU": float(here.gpus), "memory": here.memory_gb * 2**30}
    return here, _cluster(config, {"here": Node(amounts)}, here)


def _entry(
    config: TournamentConfig, config_file: Path, machine: Machine | None, lineage: str, base: str, index: int
) -> PlannedEntry:
    recipe = config.competitors[index]
    shape = describe_base(base, config_file.parent)
    on_gpu = trains_on_gpu(recipe, machine)
    memory = estimate_entry(recipe, config_file.parent, shape, config.data.max_tokens, on_gpu)
    return PlannedEntry(
        lineage=lineage,
        competitor=recipe.name,
        kind=recipe.kind,
        recipe=recipe.summary,
        workers=recipe.resources.workers,
        cpus=recipe.resources.cpus,
        gpus=recipe.resources.gpus,
        memory_gb=None if memory is None else memory.total,
        memory_parts=memory,
        needs_gpu=recipe.needs_gpu,
    )


def _unchecked_models(config: TournamentConfig, config_file: Path) -> list[str]:
    named = [(f"lineages[{x.name}].base", x.base) for x in config.lineages]
    named += [(f"references[{r.name}].model", r.model) for r in config.references if r.model]
    away = [
        (key, spec)
        for key, spec in named
        if not spec.startswith(model_sources.BUILTIN) and model_sources.locate(spec, config_file.parent) is None
    ]
    return [f"{key}: {spec} is not on this machine: that it exists{_size_of_hub_model(spec)}" for key, spec in away]


def _size_of_hub_model(spec: str) -> str:
    """Where the size of a model that is not here comes from, if from anywhere."""
    if model_sources.cached(spec) is not None:
        return "; its size is that of its config in the hub's cache"
    if spec not in KNOWN:
        return ", its size and its memory"
    return f"; its size is from a table{': ' + KNOWN[spec].assumed if KNOWN[spec].assumed else ''}"


def _unchecked_data(config: TournamentConfig, config_file: Path) -> list[str]:
    """Local data is read and split, so that its mistakes show here; a hub data set is not."""
    if away := _data_away(config):
        return [f"data.source: {', '.join(away)} is not on this machine: its columns and its number of rows"]
    with tempfile.TemporaryDirectory() as scratch:
        make_data(config, config_file, Path(scratch) / "data")
    return []


def _data_away(config: TournamentConfig) -> list[str]:
    return [source for source in config.data.sources if source.startswith(HUB)]


def _tokens_in_all(config: TournamentConfig, trainings: int) -> int | None:
    if config.budget.total_tokens is not None:
        return config.budget.total_tokens * len(config.lineages)
    return None if config.budget.tokens is None else config.budget.tokens * trainings


def _placement(config: TournamentConfig, address: str) -> tuple[list[str], Machine, Cluster]:
    """What the cluster at `address` cannot place, its largest machine, and all of it."""
    from cluster.connect import connected
    from cluster.errors import ClusterTrouble
    from cluster.nodes import largest_machine, possible_nodes
    from cluster.ray_workers import RayWorkers

    problems = []
    with connected(address) as resources:
        workers = RayWorkers({})
        machine = largest_machine()
        cluster = _cluster(config, possible_nodes(), machine)
        for recipe in config.competitors:
            try:
                workers.refuse_impossible(cluster.shape(recipe), f"competitors[{recipe.name}]")
            except ClusterTrouble as trouble:
                problems.append(str(trouble))
    there = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
    return problems or [f"every entry can be placed on the cluster at {address} ({there})"], machine, cluster


def _on_paper(config: TournamentConfig, file: Path) -> tuple[list[str], Machine, Cluster]:
    """The same of a cluster that is not there, with all the nodes that the file allows."""
    types = read_cluster(file)
    nodes = nodes_of(types)
    machine = largest_of(nodes)
    cluster = _cluster(config, nodes, machine)
    shapes = {recipe.name: cluster.shape(recipe) for recipe in config.competitors}
    problems = [f"competitors[{name}] {words}" for name, shape in shapes.items() if (words := refusal(shape, nodes))]
    said = ", ".join(f"{kind.most} {kind.name}" for kind in types if not kind.is_head)
    return (
        problems or [f"every entry can be placed on what {file} allows ({said})"],
        machine,
        cluster,
    )


def _cluster(config: TournamentConfig, nodes: Nodes, machine: Machine) -> Cluster:
    return Cluster(nodes, machine.gpu_kind, one_node=config.cluster.bucket is not None)


def print_plan(console: Console, plan: Plan) -> None:
    """The plan as a person reads it."""
    size = f"{_counted(plan.rounds, 'round')}, {_counted(len(plan.lineages), 'lineage')}"
    console.print(f"{plan.tournament}: {size}", highlight=False)
    for title, lines in (("lineages", plan.lineages), ("references", plan.references)):
        for line in lines:
            console.print(f"  {title[:-1]} {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(_entries_table(plan))
    for one in plan.allocations:
        console.print(allocation_table(one))
        lines = [in_words(one)] + ([usage_in_words(one.usage, one.lineage)] if one.usage else [])
        for line in lines:
            console.print(line, markup=False, highlight=False, soft_wrap=True)
    tokens = "" if plan.training_tokens is None else f", at most {plan.training_tokens:,} training tokens"
    console.print(f"{_counted(plan.trainings, 'training')}{tokens}, {_hours(plan)}", highlight=False)
    if plan.schedule is not None:
        line = schedule_in_words(plan.schedule)
        console.print(f"on this cluster: {line}", markup=False, highlight=False, soft_wrap=True)
    if plan.disk is not None:
        console.print(disk_in_words(plan.disk), markup=False, highlight=False, soft_wrap=True)
    console.print(power_in_words(plan.power), markup=False, highlight=False, soft_wrap=True)
    for title, lines in (
        ("warning", plan.warnings),
        ("placement", plan.placement),
        ("assumed", plan.assumptions),
        ("not checked", plan.unchecked),
    ):
        for line in lines:
            console.print(f"{title}: {line}", markup=False, highlight=False, soft_wrap=True)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _hours(plan: Plan) -> str:
    if plan.gpu_hours is not None:
        return f"at most {plan.gpu_hours:,.1f} GPU hours"
    if plan.training_hours is not None:
        return f"at most {plan.training_hours:,.1f} hours of training, without a GPU"
    return "no budget of minutes"


def _entries_table(plan: Plan) -> Table:
    """One row per competitor; memory per lineage, since their bases differ."""
    table = Table(title="entries of one round, in each lineage", title_justify="left", box=SIMPLE_HEAD)
    table.add_column("competitor", no_wrap=True)
    table.add_column("recipe", overflow="fold")
    table.add_column("needs", no_wrap=True)
    table.add_column("memory per worker", no_wrap=True)
    for name in dict.fromkeys(entry.competitor for entry in plan.entries):
        rows = [entry for entry in plan.entries if entry.competitor == name]
        first = rows[0]
        gpus = "a GPU if any" if first.gpus == "auto" else f"{float(first.gpus):g} GPU"
        workers = f"{first.workers} x " if first.workers > 1 else ""
        known = [f"{row.memory_gb:.1f} GB ({row.lineage})" for row in rows if row.memory_gb is not None]
        needs = f"{workers}{first.cpus:g} CPU, {gpus}"
        if first.needs_gpu:
            needs += f"\nGPU only: {first.needs_gpu.partition(':')[0]}"
        table.add_row(name, f"{first.kind}: {first.recipe}", needs, "\n".join(known) or "not checked")
    return table
