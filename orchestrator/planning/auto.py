"""`competitors: auto`: the field for a base, the data, the budget and the hardware. A pure function of plain values.

Full fine-tuning at a few rates where memory holds it, with ZeRO over a node's GPUs or with Adafactor where it would
not otherwise; LoRA on every linear layer beside it, over four bits where even that is too much. All lineages of a
tournament get the same field: methods by their largest base, rates from the widest's to the narrowest's.
"""

import math
from collections.abc import Iterable
from typing import Any

from cluster.errors import UserError
from cluster.machine import Machine
from cluster.records import Record
from competitors.sft.recipe import SftRecipe
from orchestrator.planning import priors
from orchestrator.planning.memory import estimate
from orchestrator.planning.model_shape import BaseShape

Raw = dict[str, Any]

UNKNOWN_GPU_MEMORY_GB = 24.0
"""Where a cluster does not tell: what the smallest GPU for such work has."""
USED_SHARE = {"gpu": 0.9, "cpu": 0.8}
"""Of a device's memory that the estimate may fill."""
CPUS_PER_GPU = 8

ADAFACTOR = {"optimizer": "adafactor", "optimizer_args": {"scale_parameter": False, "relative_step": False}}
FULL: tuple[Raw, ...] = ({}, {"deepspeed": "zero2"}, {"deepspeed": "zero3"}, ADAFACTOR)
"""Ways to hold full fine-tuning, the first that fits is taken."""
LORA: tuple[Raw, ...] = ({"method": "lora"}, {"method": "qlora"}, {"method": "lora", "deepspeed": "zero3"})


class Basis(Record):
    """Everything that the field follows from."""

    bases: list[BaseShape]
    """One for each lineage."""
    rows: int
    """Of training data."""
    tokens_per_row: float
    max_tokens: int
    line_tokens: int | None
    """What one recipe may come to train on in all rounds; None where the budget is one of time."""
    spans_rounds: bool
    """Whether the same recipes go on from round to round, each with an equal budget."""
    machine: Machine
    has_four_bits: bool
    """Whether bitsandbytes is installed."""


def make_recipes(basis: Basis) -> list[SftRecipe]:
    """Four to eight recipes, no two alike. UserError where the machine holds none."""
    largest = max(basis.bases, key=lambda base: base.parameters)
    batch = priors.batch_for(basis.line_tokens, basis.tokens_per_row)
    full = _first_that_fits(basis, largest, batch, FULL)
    rank = priors.rank_for(basis.rows * basis.tokens_per_row, _sizes_per_rank(largest), largest.hidden)
    lora = _first_that_fits(basis, largest, batch, [_adapter(way, rank) for way in LORA])
    if full is None and lora is None:
        raise UserError(f"competitors: auto: {_too_small(basis, largest, rank)}")
    widths = [base.hidden for base in basis.bases]
    made: list[Raw] = []
    if full is not None:
        rates = [priors.full_rate(width, _rows_per_step(full)) for width in widths]
        made += _full_recipes(full, min(rates), max(rates))
    if lora is not None:
        rates = [priors.lora_rate(width, _rows_per_step(lora)) for width in widths]
        made += _lora_recipes(lora, min(rates), max(rates), largest.hidden, is_alone=full is None)
    shared: Raw = {"kind": "sft", "schedule": "linear", "continue": True}
    if basis.spans_rounds:  # one schedule over all rounds: what is scored before its end is an average, which is free
        shared |= {"schedule_spans": "lineage", "score_weights": "tail_average"}
    return [SftRecipe.model_validate(shared | recipe) for recipe in made]


def _full_recipes(full: Raw, low: float, high: float) -> list[Raw]:
    """A ladder of rates, and one recipe whose second moments forget sooner."""
    made = [full | {"name": f"full-{rate:g}", "learning_rate": rate} for rate in priors.ladder(low, high)]
    middle = priors.rounded((low * high) ** 0.5)
    if "optimizer" not in full:
        made.append(full | {"name": "full-beta2", "learning_rate": middle, "betas": [0.9, 0.95]})
    return made


def _lora_recipes(lora: Raw, low: float, high: float, width: int, is_alone: bool) -> list[Raw]:
    """Rates around LoRA's best; alone in the field also a higher rank and LoRA+."""
    adapter: Raw = lora["adapter"]

    def made(word: str, rate: float, **changes: Any) -> Raw:
        return lora | {"name": f"{adapter['method']}-{word}", "learning_rate": rate, "adapter": adapter | changes}

    rates = priors.ladder(low, high) if is_alone else priors.pair(low, high)
    recipes = [made(f"{rate:g}", rate) for rate in rates]
    if not is_alone:
        return recipes
    middle = priors.rounded((low * high) ** 0.5)
    rank = min(4 * adapter["rank"], 2 * priors.RANKS[1], max(width // 2, 1))
    if rank > adapter["rank"]:
        recipes.append(made(f"r{rank}", middle, rank=rank))
    plus = priors.LORA_PLUS_RATIO
    return [*recipes, made("plus", priors.rounded(middle / (plus / 2)), lora_plus_ratio=plus)]


def _adapter(way: Raw, rank: int) -> Raw:
    rest = {key: value for key, value in way.items() if key != "method"}
    return rest | {"adapter": {"method": way["method"], "rank": rank, "alpha": priors.LORA_ALPHA}}


def _first_that_fits(basis: Basis, base: BaseShape, batch: int, ways: Iterable[Raw]) -> Raw | None:
    """The first of `ways` that the machine holds, with its batch and resources; None if it holds none."""
    machine, on_gpu = basis.machine, basis.machine.gpus > 0
    for way in ways:
        is_sharded = "deepspeed" in way
        if is_sharded and machine.gpus < 2:
            continue
        if way.get("adapter", {}).get("method") == "qlora" and not (on_gpu and basis.has_four_bits):
            continue
        workers = int(machine.gpus) if is_sharded else 1
        if (held := _held(way | _precision(machine), basis, base, max(batch // workers, 1), workers)) is not None:
            return held
    return None


def _held(way: Raw, basis: Basis, base: BaseShape, rows: int, workers: int) -> Raw | None:
    """`way` with `rows` of each worker in as few passes as memory allows; last of all it keeps no activations."""
    machine = basis.machine
    for room, keeps_activations, fewest in _rooms(machine, rows):
        at_once = rows
        while at_once >= fewest:
            passes: Raw = {"batch_size": at_once, "gradient_accumulation": rows // at_once}
            made = way | passes | ({} if keeps_activations else {"gradient_checkpointing": True})
            needed = _needed_gb(made, basis, base, workers)
            if needed <= room:
                return made | {"resources": _resources(machine, workers, needed)}
            at_once //= 2
    return None


def _rooms(machine: Machine, rows: int) -> list[tuple[float, bool, int]]:
    """What to try in turn: GB that a worker may take, whether it keeps activations, the fewest rows of a pass.

    To recompute activations costs a third more, on a GPU less than passes of an eighth of the rows. On a CPU small
    passes cost little, so that first one CPU's share of the memory is tried, with which all can train side by side.
    """
    room = _room_gb(machine)
    if machine.gpus > 0:
        return [(room, True, max(rows // 4, 1)), (room, False, 1)]
    return [(room / max(machine.cpus, 1), True, 1), (room, True, 1), (room, False, 1)]


def _needed_gb(way: Raw, basis: Basis, base: BaseShape, workers: int) -> float:
    resources = {"workers": workers, "gpus": float(basis.machine.gpus > 0)}
    recipe = SftRecipe.model_validate({"name": "x", "kind": "sft", "learning_rate": 1.0, **way, "resources": resources})
    return estimate(recipe, base, basis.max_tokens, basis.machine.gpus > 0).total


def _room_gb(machine: Machine) -> float:
    """What one worker may take: of a GPU, or of the machine."""
    if machine.gpus > 0:
        return (machine.gpu_memory_gb or UNKNOWN_GPU_MEMORY_GB) * USED_SHARE["gpu"]
    return machine.memory_gb * USED_SHARE["cpu"]


def _resources(machine: Machine, workers: int, needed: float) -> Raw:
    """A GPU and its share of the CPUs; without GPUs as many CPUs as its share of the memory, so that all find room."""
    if machine.gpus > 0:
        cpus = int(min(max(machine.cpus // machine.gpus, 1), CPUS_PER_GPU))
        return {"workers": workers, "cpus": cpus, "gpus": 1}
    share = needed / _room_gb(machine)
    return {"cpus": int(min(max(math.ceil(share * machine.cpus), 1), machine.cpus))}


def _precision(machine: Machine) -> Raw:
    """`auto` would have a GPU without bfloat16 emulate it."""
    return {"dtype": "float16"} if machine.gpus > 0 and not machine.has_bfloat16 else {}


def _rows_per_step(way: Raw) -> int:
    return int(way["batch_size"] * way["gradient_accumulation"] * way["resources"].get("workers", 1))


def _sizes_per_rank(base: BaseShape) -> int:
    """Parameters of an adapter of rank 1 on every linear layer."""
    return sum(out + inside for out, inside in base.linear.values())


def _too_small(basis: Basis, base: BaseShape, rank: int) -> str:
    machine = basis.machine
    way = _adapter(LORA[0], rank) | {"batch_size": 1, "gradient_checkpointing": True}
    needed = _needed_gb(way, basis, base, 1)
    where = f"a GPU of {machine.gpu_memory_gb or UNKNOWN_GPU_MEMORY_GB:.0f} GB" if machine.gpus else "this machine"
    four = (
        "" if basis.has_four_bits or not machine.gpus else "; with bitsandbytes QLoRA takes less (pip install '.[gpu]')"
    )
    return f"LoRA alone takes {needed:.1f} GB of this base, and {where} has {_room_gb(machine):.1f} GB to give{four}"
