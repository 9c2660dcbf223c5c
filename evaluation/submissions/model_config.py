"""A submission's config.json against its seed's. Nothing of it is ever used: a model is built from the seed's.

So this only finds out that a submission was made as another model than it would be scored as, by mistake or to gain
by it, and says so by the key's name. What it leaves out is the seed's.
"""

from typing import Any

from cluster.errors import Forfeit
from cluster.text import plain

MAY_DIFFER = {
    "_name_or_path", "transformers_version", "architectures", "use_cache", "initializer_range", "pretraining_tp",
    "output_attentions", "output_hidden_states", "output_router_logits", "router_aux_loss_coef", "unsloth_version",
    "unsloth_fixed", "tokenizer_class",
}  # fmt: skip
"""Keys, beside dropout, that change nothing of what weights compute: notes of whoever wrote them."""
TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")
"""Trainers align them with their tokenizer; which ids are read, the lineage's own tokenizer says."""
DTYPES = ("dtype", "torch_dtype")
FLOATS = ("float64", "float32", "float16", "bfloat16")
OLD_ROPE = ("rope_theta", "rope_scaling")
"""What transformers before its version 5 writes in the place of `rope_parameters`."""
RUNS_CODE = ("auto_map", "custom_generate", "trust_remote_code")

Config = dict[str, Any]


def compare_configs(config: Config, seed: Config, full: Config) -> None:
    """Forfeit where a config says what its seed's does not, in its own file (`seed`) or with defaults (`full`)."""
    if config.get("model_type") != full["model_type"]:
        theirs, ours = plain(repr(config.get("model_type")), 60), full["model_type"]
        raise Forfeit(f"config.json says model_type: {theirs}, the seed is a {ours}")
    _compare(config, [seed, full], "", int(full.get("vocab_size") or 2**31))


def _compare(config: Config, accepted: list[Config], inside: str, vocabulary: int) -> None:
    for key, value in config.items():
        known = [one[key] for one in accepted if key in one]
        sections = [one for one in known if isinstance(one, dict)]
        if key in MAY_DIFFER or "drop" in key or value in known:
            continue
        if isinstance(value, dict) and sections:
            _compare(value, sections, f"{inside}{key}.", vocabulary)
            continue
        if key in OLD_ROPE and value in (old := [_old_rope(key, one) for one in accepted if "rope_parameters" in one]):
            continue
        if key in OLD_ROPE and not known:
            known = old
        if key in TOKENS and _is_token(value, vocabulary):
            continue
        if key in DTYPES and value in FLOATS:
            continue
        if value is None and not known:
            continue
        said = f"config.json says {plain(f'{inside}{key}: {value!r}', 140)}"
        if key in RUNS_CODE:
            raise Forfeit(f"{said}: code of its own is never run")
        raise Forfeit(f"{said}, the seed's says {plain(repr(known[-1]), 100) if known else 'nothing of it'}")


def refuse_unknown_keys(config: Config, known: Config) -> None:
    """Forfeit where a config that is to be used holds more than its class knows."""
    harmless = MAY_DIFFER | {*TOKENS, *DTYPES, *OLD_ROPE, "model_type"}
    for key, value in config.items():
        if value is not None and key not in known and key not in harmless:
            raise Forfeit(f"config.json says {plain(f'{key}: {value!r}', 140)}, which its model does not know")


def _is_token(value: Any, vocabulary: int) -> bool:
    ids = value if isinstance(value, list) else [] if value is None else [value]
    return all(type(one) is int and -1 <= one < vocabulary for one in ids)


def _old_rope(key: str, config: Config) -> Any:
    """What an older transformers would have written for the seed's own rope."""
    rope = config["rope_parameters"]
    if not isinstance(rope, dict):
        return None
    if key == "rope_theta":
        return rope.get("rope_theta")
    scaling = {name: value for name, value in rope.items() if name not in ("rope_theta", "partial_rotary_factor")}
    return None if scaling.get("rope_type") == "default" else scaling
