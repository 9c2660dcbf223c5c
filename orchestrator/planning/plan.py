"""`tournament plan`: what would run, what it needs, and what could not be checked. Nothing is trained.

Works without GPU, network or weights: what is not here is said to be unchecked, never guessed.
"""

import tempfile
from pathlib import Path

from cluster.machine import Machine
from cluster.records import Record
from evaluation.data.sources import HUB
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.roster import Roster
from orchestrator.planning import model_sources
from orchestrator.planning.allocated import PlannedAllocation, plan_allocation
from orchestrator.planning.budget import refuse_hours_without_gpus
from orchestrator.planning.disk import Disk, disk
from orchestrator.planning.known_shapes import KNOWN
from orchestrator.planning.memory import ASSUMPTIONS, Estimate, estimate_entry, trains_on_gpu, warnings
from orchestrator.planning.model_shape import describe_base
from orchestrator.planning.module_names import unmatched_names
from orchestrator.planning.place import Place, place_of
from orchestrator.planning.power import Power, groups_that_prove, power_of, too_few_rows
from orchestrator.planning.preparation import check_inputs, make_data
from orchestrator.planning.schedule import Schedule, equal_rounds, races_in_vain, schedule
from orchestrator.planning.usage import Cluster, assumption


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
    """The same by the GPUs that they hold, or a whole budget of them; None also where there is none."""
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
    """What the cluster or this machine cannot place, or that a cluster that was asked can place everything."""


def make_plan(
    config: TournamentConfig, config_file: Path, address: str | None, cluster_file: Path | None = None
) -> Plan:
    """The plan of `config`, on the cluster at `address` or on paper. UserError for what is wrong with it, as `run`."""
    check_inputs(config, config_file)
    place = place_of(config, address, cluster_file)
    refuse_hours_without_gpus(config, place.has_gpus, config_file)
    allocations, unchecked, groups = _by_the_data(config, config_file, place.cluster)  # fetches tokenizers
    unchecked = [*_unchecked_models(config, config_file), *unchecked]
    shapes = {one.name: describe_base(one.base, config_file.parent) for one in config.lineages}
    rounds = _rounds(config, place.has_gpus, allocations)
    scheduled = None
    if place.cluster is not None and rounds is not None:
        of = [(rounds[name], shape) for name, shape in shapes.items()]
        scheduled = schedule(of, place.cluster, config.cluster.prices)
    trainings = _trainings(config, allocations)
    return Plan(
        tournament=config.name,
        lineages=[f"{lineage.name}: {lineage.base}" for lineage in config.lineages],
        references=[f"{r.name}: {r.model or 'published, drawn only'}" for r in config.references],
        rounds=config.all_rounds,
        entries=[
            _entry(config, config_file, place.machine, lineage.name, lineage.base, index)
            for lineage in config.lineages
            for index in range(len(config.competitors))
        ],
        allocations=allocations,
        trainings=trainings,
        training_tokens=_tokens_in_all(config, trainings, allocations),
        training_hours=None if config.budget.minutes is None else config.budget.minutes / 60 * trainings,
        gpu_hours=_gpu_hours(config, place.has_gpus),
        schedule=scheduled,
        disk=None if rounds is None else disk(config, config_file.parent, rounds, shapes),
        power=power_of(config, groups),
        warnings=[
            *warnings(config, config_file.parent, place.machine, place.is_one_machine),
            *unmatched_names(config, config_file.parent),
            *too_few_rows(config, groups),
            *_too_dear(config, scheduled),
            *([] if place.cluster is None else races_in_vain(config, place.cluster)),
        ],
        assumptions=_assumptions(config, place, scheduled),
        unchecked=[*unchecked, *_unchecked_place(config, place, address, cluster_file)],
        placement=place.placement,
    )


def _trainings(config: TournamentConfig, allocations: list[PlannedAllocation]) -> int:
    if allocations:
        return sum(row.trainings for one in allocations for row in one.rounds)
    training = sum(recipe.trains for recipe in config.competitors)
    if config.is_allocated:  # a race and a line, where no more is known
        return (training + config.rounds - 1) * len(config.lineages)
    return training * len(config.lineages) * config.all_rounds


def _gpu_hours(config: TournamentConfig, has_gpus: bool) -> float | None:
    if config.budget.total_gpu_hours is not None:
        return config.budget.total_gpu_hours * len(config.lineages)
    if config.budget.minutes is None:
        return None
    held = [r.resources.gpus_where(has_gpus) * r.resources.workers for r in config.competitors if r.trains]
    return sum(held) * config.budget.minutes / 60 * len(config.lineages) * config.all_rounds or None


def _assumptions(config: TournamentConfig, place: Place, scheduled: Schedule | None) -> list[str]:
    lines = ["hours and tokens are upper bounds: budgets used up, start-up and scoring not counted", *ASSUMPTIONS]
    if any(recipe.resources.gpus == "auto" for recipe in config.competitors):
        lines.append("an entry without resources.gpus takes one GPU where the cluster has any")
    kind = place.cluster.gpu_kind if place.cluster else None
    by_tokens = config.budget.tokens is not None or config.budget.total_tokens is not None
    if kind and by_tokens and scheduled is not None and scheduled.hours is not None:
        lines.append(assumption(kind))
    return lines


def _unchecked_place(
    config: TournamentConfig, place: Place, address: str | None, cluster_file: Path | None
) -> list[str]:
    lines, machine = [], place.machine
    if machine is None or (machine.gpus and not machine.gpu_memory_gb):
        lines.append("whether each entry's memory is there: that of the cluster's GPUs is not known here")
    if not address and cluster_file is None:
        named = config.cluster.address
        why = f"cluster.address {named} was not asked (--address {named})" if named else "none was named (--address)"
        lines.append(f"whether a cluster can place this: {why}")
    return lines


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
    away = [(key, spec) for key, spec in named if model_sources.is_away(spec, config_file.parent)]
    return [f"{key}: {spec} is not on this machine: that it exists{_size_of_hub_model(spec)}" for key, spec in away]


def _size_of_hub_model(spec: str) -> str:
    """Where the size of a model that is not here comes from, if from anywhere."""
    if model_sources.cached(spec) is not None:
        return "; its size is that of its config in the hub's cache"
    if spec not in KNOWN:
        return ", its size and its memory"
    return f"; its size is from a table{': ' + KNOWN[spec].assumed if KNOWN[spec].assumed else ''}"


def _by_the_data(
    config: TournamentConfig, config_file: Path, cluster: Cluster | None
) -> tuple[list[PlannedAllocation], list[str], int | None]:
    """How a whole budget is shared out, what of the data could not be checked, and how many groups of rows prove.

    Local data is read and split, so that its mistakes show here; a hub data set is not.
    """
    if away := [source for source in config.data.sources if source.startswith(HUB)]:
        return [], [f"data.source: {', '.join(away)} is not on this machine: its columns and its number of rows"], None
    with tempfile.TemporaryDirectory() as scratch:
        data = Path(scratch) / "data"
        make_data(config, config_file, data)
        allocations, unchecked = list[PlannedAllocation](), list[str]()
        if config.budget.whole is not None:
            allocations, unchecked = plan_allocation(config, config_file, data, cluster)
        return allocations, unchecked, groups_that_prove(data)


def _tokens_in_all(config: TournamentConfig, trainings: int, allocations: list[PlannedAllocation]) -> int | None:
    total = config.budget.total_tokens
    if total is not None:
        spent = {one.lineage: one.tokens or 0 for one in allocations}
        return sum(spent.get(lineage.name, total) for lineage in config.lineages)
    return None if config.budget.tokens is None else config.budget.tokens * trainings
