"""The automatic field: full fine-tuning where memory holds it, else ZeRO, LoRA or QLoRA; rates from known priors."""

from itertools import pairwise
from typing import Any

import pytest

from cluster.errors import UserError
from cluster.machine import Machine
from orchestrator.planning import priors
from orchestrator.planning.auto import Basis, make_recipes
from orchestrator.planning.memory import estimate
from orchestrator.planning.model_shape import BaseShape, llama, size_of

LAPTOP = Machine(memory_gb=16, gpus=0, cpus=4)
H100 = Machine(memory_gb=500, gpus=1, gpu_memory_gb=80, cpus=16)
NODE = Machine(memory_gb=1000, gpus=8, gpu_memory_gb=80, cpus=96)


def base(hidden: int, layers: int, vocabulary: int = 32_000) -> BaseShape:
    """A Llama of that width and depth."""
    tensors = llama(layers, hidden, 3 * hidden, hidden // 4, vocabulary, tied=True)
    return BaseShape(
        layers=layers, hidden=hidden, intermediate=3 * hidden, heads=8, key_value_size=hidden // 4,
        vocabulary=vocabulary, stored_bytes=2 * sum(map(size_of, tensors.values())), tensors=tensors,
    )  # fmt: skip


TINY, SMALL, THREE_BILLION, EIGHT_BILLION, SEVENTY_BILLION = (
    base(64, 5, 512), base(288, 6), base(3072, 28), base(4096, 32), base(8192, 80),
)  # fmt: skip


def basis(machine: Machine, *bases: BaseShape, **changes: Any) -> Basis:
    """10,000 rows of 100 tokens, and 20 million tokens to train on."""
    plain = {
        "bases": list(bases), "rows": 10_000, "tokens_per_row": 100.0, "max_tokens": 512, "line_tokens": 20_000_000,
        "spans_rounds": False, "machine": machine, "has_four_bits": True,
    }  # fmt: skip
    return Basis(**plain | changes)


MACHINES = {"laptop": (LAPTOP, TINY), "one GPU": (H100, THREE_BILLION), "node": (NODE, EIGHT_BILLION)}


@pytest.mark.parametrize("name", MACHINES)
def test_a_field_is_a_spread_of_four_to_eight_that_fit(name: str):
    machine, shape = MACHINES[name]
    given = basis(machine, shape)
    recipes = make_recipes(given)
    assert 4 <= len(recipes) <= 8
    assert len({recipe.name for recipe in recipes}) == len(recipes)
    assert len({recipe.model_copy(update={"name": "x"}).model_dump_json() for recipe in recipes}) == len(recipes)
    assert make_recipes(given) == recipes
    for recipe in recipes:
        room = machine.gpu_memory_gb or machine.memory_gb
        assert estimate(recipe, shape, 512, machine.gpus > 0).total <= room
        assert recipe.resources.cpus * recipe.resources.workers <= machine.cpus


def test_full_rates_are_a_few_apart_and_loras_lie_above():
    recipes = make_recipes(basis(H100, THREE_BILLION))
    full = sorted({recipe.learning_rate for recipe in recipes if recipe.adapter is None})
    lora = sorted(recipe.learning_rate for recipe in recipes if recipe.adapter is not None)
    assert len(full) == 3
    assert all(2 <= high / low <= 4 for low, high in pairwise(full))
    assert lora[0] < 10 * full[1] < lora[-1]  # LoRA Without Regret
    assert all(recipe.adapter.target_modules is None for recipe in recipes if recipe.adapter)  # every linear layer


@pytest.mark.parametrize(
    ("machine", "shape", "four_bits", "wanted"),
    [
        (H100, THREE_BILLION, True, {"full", "lora"}),
        (Machine(memory_gb=100, gpus=1, gpu_memory_gb=24, cpus=8), EIGHT_BILLION, True, {"lora"}),
        (NODE, EIGHT_BILLION, True, {"full", "lora"}),
        (H100, SEVENTY_BILLION, True, {"qlora"}),
        (Machine(memory_gb=100, gpus=1, gpu_memory_gb=12, cpus=8), EIGHT_BILLION, True, {"qlora"}),
        (NODE, SEVENTY_BILLION, False, {"lora"}),
    ],
)
def test_methods_follow_memory(machine: Machine, shape: BaseShape, four_bits: bool, wanted: set[str]):
    recipes = make_recipes(basis(machine, shape, has_four_bits=four_bits))
    assert {recipe.adapter.method if recipe.adapter else "full" for recipe in recipes} == wanted


def test_what_one_gpu_does_not_hold_is_sharded_over_the_node():
    full = [recipe for recipe in make_recipes(basis(NODE, EIGHT_BILLION)) if recipe.adapter is None]
    assert {(recipe.deepspeed, recipe.resources.workers) for recipe in full} <= {("zero2", 8), ("zero3", 8)}
    assert {r.batch_size * r.gradient_accumulation * r.resources.workers for r in full} == {32}


def test_adafactor_is_taken_where_adams_moments_do_not_fit():
    full = [recipe for recipe in make_recipes(basis(H100, EIGHT_BILLION)) if recipe.adapter is None]
    assert {recipe.optimizer for recipe in full} == {"adafactor"}


def test_entries_on_a_cpu_train_side_by_side():
    assert {recipe.resources.cpus for recipe in make_recipes(basis(LAPTOP, TINY))} == {1}


def test_a_gpu_without_bfloat16_trains_in_float16():
    old = Machine(memory_gb=100, gpus=1, gpu_memory_gb=16, cpus=8, has_bfloat16=False)
    assert {recipe.dtype for recipe in make_recipes(basis(old, SMALL))} == {"float16"}


def test_the_unknown_memory_of_a_clusters_gpus_is_taken_to_be_little():
    known = basis(Machine(memory_gb=100, gpus=1, gpu_memory_gb=24, cpus=8), EIGHT_BILLION)
    unknown = basis(Machine(memory_gb=100, gpus=1, cpus=8), EIGHT_BILLION)
    assert make_recipes(unknown) == make_recipes(known)


def test_several_bases_share_a_field_whose_rates_serve_all():
    narrow, wide, both = (make_recipes(basis(LAPTOP, *bases)) for bases in ([TINY], [SMALL], [TINY, SMALL]))

    def rates(recipes: Any) -> list[float]:
        return sorted(recipe.learning_rate for recipe in recipes if recipe.adapter is None)

    assert rates(both)[0] == rates(wide)[0]
    assert rates(both)[-1] == rates(narrow)[-1]
    assert len(both) <= 8


def test_a_machine_that_holds_nothing_is_one_line():
    with pytest.raises(
        UserError, match=r"^competitors: auto: LoRA alone takes [\d.]+ GB of this base, and this machine"
    ):
        make_recipes(basis(LAPTOP, SEVENTY_BILLION))
    with pytest.raises(UserError, match="with bitsandbytes QLoRA takes less"):
        make_recipes(basis(H100, SEVENTY_BILLION, has_four_bits=False))


def test_equal_rounds_have_one_schedule_over_all_of_them():
    assert {recipe.schedule_spans for recipe in make_recipes(basis(LAPTOP, TINY, spans_rounds=True))} == {"lineage"}
    assert {recipe.schedule_spans for recipe in make_recipes(basis(LAPTOP, TINY))} == {"round"}


def test_rates_fall_with_width_and_rise_with_the_batch():
    rates = [priors.full_rate(width, 16) for width in (16, 64, 128, 288, 576, 2000, 4096, 8192)]
    assert rates == sorted(rates, reverse=True)
    assert priors.full_rate(2000, 16) == pytest.approx(5e-5)
    assert priors.full_rate(4096, 64) == pytest.approx(2 * priors.full_rate(4096, 16))


def test_batches_leave_a_few_hundred_steps():
    assert priors.batch_for(None, 100) == 16
    assert priors.batch_for(100_000, 100) == 4
    assert priors.batch_for(100 * 400 * 16, 100) == 16
    assert priors.batch_for(10**9, 100) == 32


def test_the_rank_holds_the_data():
    assert priors.rank_for(1_000, 10_000, 4096) == 16
    assert priors.rank_for(1_000_000, 10_000, 4096) == 64  # 50 parameters for two tokens each
    assert priors.rank_for(10**9, 10_000, 4096) == 128
    assert priors.rank_for(10**9, 10_000, 64) == 32
