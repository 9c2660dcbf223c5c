"""DeepSpeed's configuration: what `deepspeed: zero2` stands for, and what a JSON of the user's own may say.

The recipe rules: batch, clipping, optimizer, schedule and dtype are said there, and a JSON that says something
else is refused. `auto` always agrees.
"""

import copy
import json
from pathlib import Path
from typing import Any

from cluster.errors import UserError
from cluster.records import nearest

Json = dict[str, Any]

_CPU = {"device": "cpu", "pin_memory": True}
_STAGE_3 = {
    "stage": 3,
    "reduce_bucket_size": "auto",
    "stage3_prefetch_bucket_size": "auto",
    "stage3_param_persistence_threshold": "auto",
}
PRESETS: dict[str, Json] = {
    "zero1": {"stage": 1},
    "zero2": {"stage": 2, "reduce_bucket_size": 50_000_000, "allgather_bucket_size": 50_000_000},
    "zero3": _STAGE_3,
    "zero3-offload": _STAGE_3 | {"offload_optimizer": _CPU, "offload_param": _CPU},
}
FILLED_IN = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")

OPTIMIZERS = ("adamw_torch", "adamw_torch_fused", "sgd", "rmsprop")
"""Those that treat every number alike: ZeRO gives them flat shards, not the weights' shapes. (DeepSpeed 0.19 makes
an Adagrad of its own, which loses the groups of parameters with and without weight decay.)"""

NOT_OURS = {
    "scheduler": "the recipe's schedule follows the budget",
    "amp": "use the recipe's dtype",
    "data_types": "use the recipe's dtype",
    "torch_autocast": "use the recipe's dtype",
    "tensor_parallel": "every worker takes rows of its own",
    "sequence_parallel_size": "every worker takes rows of its own",
    "data_efficiency": "which rows a step takes is settled beforehand",
    "curriculum_learning": "which rows a step takes is settled beforehand",
    "elasticity": "a gang has the number of workers that it asks for",
}


def shares_out_weights(deepspeed: str | Json | None) -> bool:
    """Whether it is ZeRO-3."""
    config = PRESETS.get(deepspeed, {}) if isinstance(deepspeed, str) else _at(deepspeed or {}, "zero_optimization")
    return bool(_at(config, "stage") == 3)


def unknown(value: str) -> str | None:
    """What is wrong with a `deepspeed` that is neither a preset nor a JSON file's name."""
    if value in PRESETS or value.endswith(".json"):
        return None
    return f'"{value}" is neither a .json file nor known{nearest(value, PRESETS)}'


def read(path: Path) -> Json:
    """A user's JSON. UserError when it is not there or none."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"deepspeed: {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise UserError(f"deepspeed: {path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise UserError(f"deepspeed: {path} is not JSON with keys at its top")
    return value


def check(given: Json, said: dict[str, tuple[Any, str]], recipe_dtype: str, recipe_optimizer: str) -> None:
    """UserError for the first key of a JSON that contradicts the recipe or cannot work here.

    `said` has the recipe's values by DeepSpeed's dotted keys, each with the recipe's own key.
    """
    for key, why in NOT_OURS.items():
        if key in given:
            raise UserError(f"deepspeed: leave {key} out: {why}")
    _check_stage(given)
    for key, (expected, name) in said.items():
        found = _at(given, key)
        if found is not None and found != "auto" and found != expected:
            raise UserError(f"deepspeed: {key} is {json.dumps(found)}, but the recipe's {name} makes it {expected}")
    for dtype, key in (("bfloat16", "bf16.enabled"), ("float16", "fp16.enabled")):
        found = _at(given, key)
        if found is not None and found != "auto" and (recipe_dtype == "auto" or found != (recipe_dtype == dtype)):
            hint = f"but the recipe's dtype is {recipe_dtype}: say auto here and mean it there"
            raise UserError(f"deepspeed: {key} is {json.dumps(found)}, {hint}")
    kind = _at(given, "optimizer.type")
    if kind is not None and (str(kind).lower() != "adamw" or not recipe_optimizer.startswith("adamw_torch")):
        raise UserError(f"deepspeed: optimizer.type is {kind}, but the recipe's optimizer is {recipe_optimizer}")


def _check_stage(given: Json) -> None:
    stage = _at(given, "zero_optimization.stage")
    if stage not in (1, 2, 3):
        hint = "without ZeRO, leave deepspeed out and give resources.workers"
        raise UserError(f"deepspeed: zero_optimization.stage has to be 1, 2 or 3; {hint}")
    for part in ("offload_optimizer", "offload_param"):
        device = _at(given, f"zero_optimization.{part}.device")
        if device == "nvme":
            raise UserError(f"deepspeed: zero_optimization.{part}.device: nvme is not supported, cpu is")
        if part == "offload_param" and device not in (None, "none") and stage != 3:
            raise UserError(f"deepspeed: zero_optimization.offload_param needs stage 3, not {stage}")


def configuration(deepspeed: str | Json | None) -> Json | None:
    """What transformers is given: the preset or the user's JSON, completed by what the recipe says."""
    if deepspeed is None:
        return None
    if isinstance(deepspeed, str):
        config: Json = {"zero_optimization": copy.deepcopy(PRESETS[deepspeed])}
    else:
        config = copy.deepcopy(deepspeed)
        config.pop("optimizer", None)  # it agrees with the recipe's, which is the one that runs
    # What is given agrees with the recipe; how its steps are cut into passes DeepSpeed is told with each pass.
    config |= dict.fromkeys(FILLED_IN, "auto")
    for key in ("bf16", "fp16"):
        config.setdefault(key, {}).setdefault("enabled", "auto")
    # The recipe's own optimizer runs, on a CPU too where its state is offloaded.
    return config | {"zero_allow_untested_optimizer": True, "zero_force_ds_cpu_optimizer": False}


def _at(config: Json, dotted: str) -> Any:
    value: Any = config  # may be no dict at all: a user wrote it
    for key in dotted.split("."):
        value = value.get(key) if isinstance(value, dict) else None
    return value
