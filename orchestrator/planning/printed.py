"""A plan as a person reads it."""

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from orchestrator.planning.allocated import allocation_table, in_words
from orchestrator.planning.disk import in_words as disk_in_words
from orchestrator.planning.plan import Plan
from orchestrator.planning.power import in_words as power_in_words
from orchestrator.planning.schedule import in_words as schedule_in_words
from orchestrator.planning.usage import in_words as usage_in_words


def print_plan(console: Console, plan: Plan) -> None:
    """The plan as a person reads it."""
    longest = max((len(one.rounds) for one in plan.allocations), default=plan.rounds)
    fewer = f" of at most {plan.rounds}" if longest < plan.rounds else ""
    size = f"{_counted(longest, 'round')}{fewer}, {_counted(len(plan.lineages), 'lineage')}"
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
