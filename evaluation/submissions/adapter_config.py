"""An adapter's config, built anew from the few settings that an adapter here may have. What else it sets is refused.

LoRA, its documented variants and IA³ are adapters here. No setting is kept that names a path or a program, and none
that PEFT would take for a regular expression: a pattern is matched here, and the names that it means take its place.
"""

import re
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cluster.errors import Forfeit
from cluster.text import plain

Config = dict[str, Any]

IGNORED = {
    "peft_type", "base_model_name_or_path", "revision", "peft_version", "inference_mode", "auto_mapping",
    "lora_dropout", "init_ia3_weights",
}  # fmt: skip
"""Who wrote it, where its base lay, and what only its training asked for."""
DEFAULTS: Config = {"bias": "none", "megatron_core": "megatron.core", "qalora_group_size": 16, "task_type": "CAUSAL_LM"}
"""Of settings that may not be set, the values that set nothing. Whatever is false or empty sets nothing either."""
OFFLOADS = "runtime_config"
STARTS = (True, False, "gaussian", "orthogonal", "mica")
"""Starts of LoRA that leave the seed as it is."""
WHY = {
    "layer_replication": "it repeats layers of the seed, and would be another model",
    "alora_invocation_tokens": "it acts only after some tokens",
    "arrow_config": "it chooses among adapters token by token",
    "bias": "it would leave the seed's own biases changed",
    "lora_bias": "it cannot be merged",
    "trainable_token_indices": "only whole modules can be saved beside LoRA",
    "target_parameters": "only modules can be targets",
    "task_type": "only causal language models are scored",
}
MOST_NAMES = 10_000
MOST_PATTERNS = 512
MOST_RANK = 8192
MOST_PATTERN = 1000
MATCHING_SECONDS = 2.0
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,299}")


def rebuilt(config: Config, modules: Sequence[str]) -> Config:
    """The settings of an adapter over a model with those modules. Forfeit, by name, for what none may have."""
    kind = config.get("peft_type")
    if not isinstance(kind, str) or kind not in KINDS:
        raise Forfeit(f"is an adapter of type {plain(repr(kind), 60)}; only LoRA, its variants and IA3 are scored")
    settings: Config = {"peft_type": kind}
    for key, value in config.items():
        if (build := KINDS[kind].get(key)) is not None:
            settings[key] = build(key, value, modules)
        elif key == OFFLOADS:
            if value and set(value) != {"ephemeral_gpu_offload"}:
                raise _refused(key, value)
        elif key not in IGNORED and value and value != DEFAULTS.get(key):
            raise _refused(key, value)
    if kind == "LORA" and config.get("init_lora_weights", True) not in STARTS:
        start = plain(repr(config["init_lora_weights"]), 60)
        raise Forfeit(
            f"adapter_config.json says init_lora_weights: {start}, which takes a part out of the seed's weights"
        )
    return settings


def _refused(key: str, value: Any) -> Forfeit:
    why = WHY.get(key, "no adapter here may set that")
    return Forfeit(f"adapter_config.json says {plain(f'{key}: {value!r}', 120)}: {why}")


def _wrong(key: str, value: Any, wanted: str) -> Forfeit:
    return Forfeit(f"adapter_config.json says {plain(f'{key}: {value!r}', 120)}: it must be {wanted}")


def _flag(key: str, value: Any, modules: Sequence[str]) -> bool:
    if value is not None and not isinstance(value, bool):
        raise _wrong(key, value, "true or false")
    return bool(value)


def _rank(key: str, value: Any, modules: Sequence[str]) -> int:
    if type(value) is not int or not 1 <= value <= MOST_RANK:
        raise _wrong(key, value, f"a number from 1 to {MOST_RANK:,}")
    return value


def _strength(key: str, value: Any, modules: Sequence[str]) -> float:
    if type(value) not in (int, float) or not abs(value) < 1e6:
        raise _wrong(key, value, "a number below a million")
    return float(value)


def _patterns(of: Callable[[str, Any, Sequence[str]], Any]) -> Callable[[str, Any, Sequence[str]], Config]:
    """Values by ends of modules' names."""

    def build(key: str, value: Any, modules: Sequence[str]) -> Config:
        found = {} if value is None else value
        if not isinstance(found, dict) or len(found) > MOST_PATTERNS:
            raise _wrong(key, value, f"at most {MOST_PATTERNS} values by name")
        for name in found:
            if not NAME.fullmatch(name):
                raise _wrong(key, name, "the end of a module's name")
        return {name: of(key, one, modules) for name, one in found.items()}

    return build


def _numbers(key: str, value: Any, modules: Sequence[str]) -> list[int] | None:
    if value is None:
        return None
    numbers = value if isinstance(value, list) else [value]
    if not all(type(one) is int and 0 <= one < MOST_NAMES for one in numbers) or len(numbers) > MOST_NAMES:
        raise _wrong(key, value, "numbers of layers")
    return numbers


def _names(key: str, value: Any, modules: Sequence[str]) -> list[str] | None:
    if value is None:
        return None
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or len(names) > MOST_NAMES:
        raise _wrong(key, value, f"at most {MOST_NAMES:,} names")
    if odd := [name for name in names if not isinstance(name, str) or not NAME.fullmatch(name)]:
        raise _wrong(key, odd[0], "the end of a module's name")
    return sorted(set(names))


def _targets(key: str, value: Any, modules: Sequence[str]) -> list[str] | str | None:
    """Names, or the names that a regular expression means."""
    if not isinstance(value, str) or value == "all-linear":
        return value if value == "all-linear" else _names(key, value, modules)
    if len(value) > MOST_PATTERN:
        raise _wrong(key, value, f"a pattern of at most {MOST_PATTERN} characters")
    try:
        with _patience(key, value):
            matched = [name for name in modules if re.fullmatch(value, name)]
    except (re.error, RecursionError, OverflowError) as error:
        raise _wrong(key, value, f"a pattern that can be read ({error})") from error
    if not matched:
        raise _wrong(key, value, "a pattern that some module of the seed matches")
    return matched


@contextmanager
def _patience(key: str, pattern: str) -> Iterator[None]:
    """Forfeit where matching takes too long; in a thread that takes no signals it was found out before."""

    def end(*_: Any) -> None:
        raise _wrong(key, pattern, f"a pattern that is matched within {MATCHING_SECONDS:g} seconds")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, MATCHING_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


_ANY_KIND = {
    "target_modules": _targets, "exclude_modules": _targets, "modules_to_save": _names, "fan_in_fan_out": _flag,
}  # fmt: skip
KINDS: dict[str, dict[str, Callable[[str, Any, Sequence[str]], Any]]] = {
    "LORA": _ANY_KIND
    | {
        "r": _rank, "lora_alpha": _strength, "use_dora": _flag, "use_rslora": _flag, "rank_pattern": _patterns(_rank),
        "alpha_pattern": _patterns(_strength), "layers_to_transform": _numbers, "layers_pattern": _names,
        "init_lora_weights": lambda key, value, modules: True,
    },
    "IA3": _ANY_KIND | {"feedforward_modules": _targets},
}  # fmt: skip
"""By PEFT's name of the type: the settings that are kept, and what makes one of them."""
