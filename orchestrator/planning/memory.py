"""An estimate of the memory that training a recipe takes, from the base's config alone, and what it warns of.

Weights, gradients and optimizer state follow from the parameters, counted in the base's own tensors, and from
the ZeRO stage (Rajbhandari et al. 2020). Activations are the tensors that autograd keeps of one forward pass of a
Llama-like block with attention that stores no scores; how large a pass may be is said in competitors/sft/passes.py.
The head is TRL's on a GPU, in tiles of at most 4,096 tokens by 32,768 words, and torch's on a CPU, in chunks of so
many bytes. Constants that no theory gives were measured: docs/LOG.md has the table, and
tests/benchmarks/test_memory_estimate.py checks it.
"""

import re
from pathlib import Path

from cluster.machine import Machine
from cluster.records import Record
from competitors.contract import RecipeBase
from competitors.search.recipe import SearchRecipe
from competitors.sft.adapters import Adapter, is_trained, names_target
from competitors.sft.passes import CHUNK_OF_LOGITS_BYTES, pass_limit_tokens
from competitors.sft.recipe import SftRecipe
from orchestrator.config.tournament import TournamentConfig
from orchestrator.planning.model_shape import BaseShape, describe_base, module_of, size_of

STATE_BYTES = {
    "adafactor": 0.1, "sgd": 0.0, "lomo": 0.0, "adalomo": 0.1, "adagrad": 4.0, "rmsprop": 4.0, "lion_32bit": 4.0,
    "paged_lion_32bit": 4.0, "rmsprop_bnb": 4.0, "rmsprop_bnb_32bit": 4.0, "schedule_free_sgd": 4.0, "ademamix": 12.0,
    "paged_ademamix_32bit": 12.0, "grokadamw": 12.0, "adamw_torch_4bit": 1.0, "lion_8bit": 1.0, "paged_lion_8bit": 1.0,
    "rmsprop_bnb_8bit": 1.0, "ademamix_8bit": 3.0, "paged_ademamix_8bit": 3.0,
}  # fmt: skip
"""Bytes of optimizer state per trained parameter; AdamW, the default, keeps two float32 moments, or 8-bit ones."""
RUNTIME_GB = 0.55
"""A process with torch, transformers and TRL before it loads anything; on a GPU about the same for its context."""
FOUR_BITS = 0.52
"""Bytes per weight in NF4 with doubly quantised scales (Dettmers et al. 2023)."""
TILE_TOKENS, TILE_WORDS = 4096, 32768
HEAD_COPIES_ON_CPU = 4
"""Of a chunk of logits."""
TEMPORARIES = 3
"""Copies of its largest tensor that an optimizer's step makes at once on a CPU."""
CPU_SLACK, CPU_SLACK_OF_ADAPTERS = 1.2, 0.7
"""What glibc's allocator takes above what is in use by activations, and how much more where every layer has an
adapter, whose small tensors lie between the large ones."""


class Estimate(Record):
    """Peak memory of one worker, in GB of 2**30 bytes, by what it goes to."""

    weights: float
    gradients: float
    optimizer: float
    transient: float
    """Activations and the head's logits, or an optimizer step's temporaries: whichever is more."""
    loading: float
    """What reading the weights takes beyond them; counts only where training takes less."""
    runtime: float = RUNTIME_GB

    @property
    def total(self) -> float:
        """The peak."""
        training = self.gradients + self.optimizer + self.transient
        return self.runtime + self.weights + max(training, self.loading)


def estimate_entry(
    recipe: RecipeBase, config_folder: Path, base: BaseShape | None, max_tokens: int, on_gpu: bool
) -> Estimate | None:
    """What one worker of an entry takes, a search's trial at the largest.

    None for a base that is not here, and for kinds whose training is not ours.
    """
    if base is None:
        return None
    if isinstance(recipe, SearchRecipe):
        recipe = recipe.largest(lambda trial: estimate(trial, base, max_tokens, on_gpu).total)
    if not isinstance(recipe, SftRecipe):
        return None
    return estimate(recipe.located(config_folder), base, max_tokens, on_gpu)


def estimate(recipe: SftRecipe, base: BaseShape, max_tokens: int, on_gpu: bool) -> Estimate:
    """What one worker of `recipe` takes at its peak, every row being `max_tokens` long."""
    compute = 2.0 if on_gpu and recipe.dtype != "float32" else 4.0
    trained = trained_tensors(recipe, base)
    count = sum(trained)
    weights = _base_bytes(recipe, base, compute) + (4.0 * count if recipe.adapter else 0.0)
    gradients, state = 4.0 * count, state_bytes(recipe) * count
    if recipe.adapter and recipe.adapter.splits_the_seed:
        state += 4.0 * count  # the adapter as it was at its start
    stage, offload = zero_stage(recipe)
    workers = recipe.resources.workers
    if stage:
        state = 0.0 if offload and on_gpu else (state + 4.0 * count) / workers  # with DeepSpeed's own copy
        gradients /= workers if stage >= 2 else 1
        gathered = 2 * weights / max(base.layers, 1)
        weights = weights if stage < 3 else gathered + (0.0 if offload and on_gpu else weights / workers)
    if recipe.score_weights == "tail_average":
        state += 4.0 * count
    step = 4.0 * (count if on_gpu and recipe.optimizer == "adamw_torch" else TEMPORARIES * max(trained, default=0))
    transient = max(step, _activation_bytes(recipe, base, max_tokens, compute, on_gpu))
    converted = not on_gpu and base.stored_bytes != 4 * base.parameters
    if recipe.adapter and recipe.adapter.splits_the_seed and not on_gpu and not converted:
        weights += base.stored_bytes  # new weights take the place of those that were mapped from the file
    return Estimate(
        weights=weights / 2**30,
        gradients=gradients / 2**30,
        optimizer=state / 2**30,
        transient=transient / 2**30,
        loading=base.stored_bytes / 2**30 if converted else 0.0,
    )


def trained_tensors(recipe: SftRecipe, base: BaseShape) -> list[int]:
    """The sizes of the tensors that `recipe` trains."""
    if recipe.adapter is None:
        names = [n for n in base.tensors if is_trained(module_of(n), recipe.freeze, recipe.train_only)]
        return [size_of(base.tensors[name]) for name in names]
    adapter = recipe.adapter
    tensors = {"lm_head.weight": (base.vocabulary, base.hidden)} | base.tensors  # a tied head is not stored
    saved = tuple(adapter.modules_to_save)
    kept = [size_of(shape) for name, shape in tensors.items() if saved and module_of(name).endswith(saved)]
    targets = _targets(adapter, base)
    if adapter.rank is None:
        return kept + [inside if "down" in name else out for name, (out, inside) in targets.items()]
    rank, both = adapter.rank, adapter.method != "mica"
    sizes = [size for out, inside in targets.values() for size in (rank * inside, rank * out * both)]
    magnitudes = [out for out, _ in targets.values()] if adapter.method == "dora" else []
    return kept + sizes + magnitudes


def _targets(adapter: Adapter, base: BaseShape) -> dict[str, tuple[int, int]]:
    """(out, in) of the modules that the adapter is put on."""
    wanted = adapter.target_modules
    if wanted == "all-linear" or (wanted is None and adapter.is_lora):
        return base.linear
    if wanted is None:  # what PEFT takes for most architectures
        wanted = ["k_proj", "v_proj", "down_proj"]
    return {name: shape for name, shape in base.linear.items() if names_target(wanted, name)}


def _base_bytes(recipe: SftRecipe, base: BaseShape, compute: float) -> float:
    """The seed's own weights as training holds them."""
    if recipe.adapter is None:
        # Under autocast the layers' weights stand in 16 bit too while a pass runs.
        return base.parameters * (4.0 if compute == 4 else 6.0)
    linear = sum(out * inside for out, inside in base.linear.values())
    per_weight = FOUR_BITS if recipe.adapter.method == "qlora" else compute
    return (base.parameters - linear) * compute + linear * per_weight


def state_bytes(recipe: SftRecipe) -> float:
    """Bytes of optimizer state per trained parameter."""
    momentum = 4.0 if recipe.optimizer == "sgd" and recipe.optimizer_args.get("momentum") else 0.0
    return momentum + STATE_BYTES.get(recipe.optimizer, 2.0 if "8bit" in recipe.optimizer else 8.0)


def _activation_bytes(recipe: SftRecipe, base: BaseShape, max_tokens: int, compute: float, on_gpu: bool) -> float:
    """What autograd keeps of a forward pass, with what the allocator wastes, and the head's logits."""
    tokens = pass_limit_tokens(recipe, max_tokens, on_gpu)
    hidden, key_value, inner = base.hidden, base.key_value_size, base.intermediate
    # In a block: two norms in float32 and what they give, q, k, v, attention's output twice, the feed-forward part.
    kept = 8.0 * hidden + compute * (2 * hidden + 3 * hidden + 2 * key_value + 4 * inner)
    share = 0.0
    if recipe.adapter is None:
        kept += 8.0 * hidden  # normalised values, for the norms' own weights
    else:
        targets = _targets(recipe.adapter, base)
        everything = sum(inside for _, inside in base.linear.values())
        inputs = sum(inside for _, inside in targets.values())
        share = inputs / max(everything, 1)
        # A frozen layer without an adapter does not keep its input.
        kept -= compute * (3 * hidden + inner) * (1 - share)
        per_layer = sum(out for out, _ in targets.values()) / base.layers
        if recipe.adapter.method == "dora":
            kept += 2 * compute * per_layer
        if recipe.adapter.dropout:
            kept += (compute + 1) * inputs / base.layers
    if recipe.attention == "eager":
        kept += base.heads * max_tokens * (4.0 + (compute if compute < 4 else 0.0))
    layers = _layers_with_activations(recipe, base)
    blocks = tokens * kept * (1 if recipe.gradient_checkpointing else layers)
    if recipe.gradient_checkpointing:
        blocks += tokens * layers * hidden * (compute if recipe.adapter else 4.0)
    slack = 1.0 if on_gpu else CPU_SLACK + CPU_SLACK_OF_ADAPTERS * share
    return blocks * slack + _head_bytes(recipe, base, tokens, compute, on_gpu)


def _head_bytes(recipe: SftRecipe, base: BaseShape, tokens: int, compute: float, on_gpu: bool) -> float:
    """The logits that exist at once, and on a CPU the gradient of the head's weight in each pass."""
    if on_gpu:
        return min(tokens, TILE_TOKENS) * TILE_WORDS * compute
    gradient = 0.0 if recipe.adapter else 4.0 * base.vocabulary * base.hidden
    return HEAD_COPIES_ON_CPU * min(CHUNK_OF_LOGITS_BYTES, 4.0 * tokens * base.vocabulary) + gradient


def _layers_with_activations(recipe: SftRecipe, base: BaseShape) -> int:
    """How many blocks the backward pass goes through: those from the first that is trained."""
    if recipe.adapter is not None:
        return base.layers
    trained = [n for n in base.tensors if is_trained(module_of(n), recipe.freeze, recipe.train_only)]
    numbers = [re.search(r"\.(?:layers|h|blocks)\.(\d+)\.", f".{name}") for name in trained]
    if any(number is None and "embed" in name for number, name in zip(numbers, trained, strict=True)):
        return base.layers
    return base.layers - min((int(number[1]) for number in numbers if number), default=base.layers)


def zero_stage(recipe: SftRecipe) -> tuple[int, bool]:
    """DeepSpeed's ZeRO stage (0 without it) and whether it keeps state in the host's memory. Of a located recipe."""
    wanted = recipe.deepspeed
    if isinstance(wanted, dict):
        section = wanted.get("zero_optimization", {})
        return int(section.get("stage", 0)), "offload_optimizer" in section
    known = re.fullmatch(r"zero(\d)(-offload)?", wanted or "")
    return (int(known[1]), known[2] is not None) if known else (0, False)


def trains_on_gpu(recipe: RecipeBase, machine: Machine | None) -> bool:
    """Whether `recipe` would train on a GPU: as it says, or, on `auto`, where there is one or nobody knows."""
    return recipe.resources.gpus_where(machine is None or machine.gpus > 0) > 0


def warnings(
    config: TournamentConfig, config_folder: Path, machine: Machine | None, is_alone: bool = False
) -> list[str]:
    """What will go wrong with these entries on `machine` (None: nobody knows which), a line for each. `is_alone`: it is
    all there is, so that the workers of a gang share its memory.

    What takes more memory than it asks for or there is, and what needs a GPU where there is none.
    """
    lines = []
    for recipe in config.competitors:
        on_gpu = trains_on_gpu(recipe, machine)
        if recipe.needs_gpu and not on_gpu:
            why = "there is none" if recipe.resources.gpus else "resources.gpus is 0"
            lines.append(f"competitors[{recipe.name}] will forfeit: {recipe.needs_gpu}, and {why}")
            continue
        for lineage in config.lineages:
            base = describe_base(lineage.base, config_folder)
            needed = estimate_entry(recipe, config_folder, base, config.data.max_tokens, on_gpu)
            if needed is None:
                continue
            where = f"competitors[{recipe.name}] on {lineage.name} takes about {needed.total:.1f} GB per worker"
            limits = _exceeded(recipe, needed.total, on_gpu, machine)
            workers = recipe.resources.workers
            if machine and is_alone and not on_gpu and needed.total < machine.memory_gb < workers * needed.total:
                limits.append(f"{workers} of them find in the {machine.memory_gb:.1f} GB of the machine")
            lines += [f"{where}, more than {limit}" for limit in limits]
    return lines


def _exceeded(recipe: RecipeBase, needed: float, on_gpu: bool, machine: Machine | None) -> list[str]:
    """The limits below `needed` GB, in words. On a GPU, resources.memory_gb is the host's, and says nothing."""
    resources = recipe.resources
    limits = []
    if not on_gpu:
        limits.append((resources.memory_gb, "its resources.memory_gb of {:g}"))
        limits.append((machine.memory_gb if machine else None, "the {:.1f} GB of the machine"))
    elif machine and machine.gpu_memory_gb:
        share = min(1.0, resources.gpus_where(True))
        limits.append((machine.gpu_memory_gb * share, "the {:.1f} GB of its GPU"))
    return [words.format(limit) for limit, words in limits if limit is not None and needed > limit]


ASSUMPTIONS = (
    "memory, an upper bound: every row max_tokens long; what is trained, its gradients and optimizer state in float32,"
    " the weights under an adapter in bfloat16 on a GPU (float32 on a CPU, 4 bits for qlora), a Llama-like block,"
    " attention that stores no scores; sharded by DeepSpeed where the entry says so",
    "memory, measured: 0.55 GB for a process before it loads anything; on a CPU 20 % of the activations, up to 90 %"
    " with an adapter on every layer, for what the allocator wastes",
)
