"""Adapters that are none, or would be more."""

import os

import torch
from safetensors.torch import load_file, save_file

from tests.unit.evaluation.submissions.zoo.spoiling import ADAPTER, Animal, Places, adapted, weighted, written

FIRST = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
SLOW = "(.*)*(.*)*(.*)*(.*)*(.*)*!"


def _with_base(name: str, places: Places) -> Animal:
    """Weights of another model among its own keys."""
    value = load_file(places.other / "model.safetensors")[name]
    change = weighted(lambda weights: weights.update({f"base_model.model.{name}": value + 1}), ADAPTER)
    return change, f"{name} of the seed, with other values"


def animals(places: Places) -> dict[str, Animal]:
    """By name."""
    other, says = str(places.other), "adapter_config.json says"
    return {
        "another's weights among its own": _with_base("model.layers.0.self_attn.q_proj.weight", places),
        "another's embeddings among its own": _with_base("model.embed_tokens.weight", places),
        "another's norm among its own": _with_base("model.norm.weight", places),
        "a weight of nothing": (
            weighted(lambda w: w.update({"base_model.model.more": torch.zeros(2)}), ADAPTER),
            "the adapter holds base_model.model.more, which its config does not promise",
        ),
        "a weight of a layer it has not": (
            weighted(lambda w: w.update({FIRST.replace("layers.0", "layers.9"): torch.zeros(2, 16)}), ADAPTER),
            "layers.9.*, which its config does not promise",
        ),
        "a weight missing": (weighted(lambda w: w.pop(FIRST), ADAPTER), "the adapter lacks 1 weights that its config"),
        "no weights": (weighted(lambda w: w.clear(), ADAPTER), "the adapter has no weights"),
        "another shape": (
            weighted(lambda w: w.update({FIRST: torch.zeros(2, 24)}), ADAPTER), r"q_proj.* has shape \(2, 24\), its"
        ),
        "not a number": (weighted(lambda w: w[FIRST].fill_(float("nan")), ADAPTER), "values that are not finite"),
        "8 bits": (weighted(lambda w: w.update({FIRST: w[FIRST].to(torch.float8_e5m2)}), ADAPTER), "stored as F8_E5M2"),
        "integers": (weighted(lambda w: w.update({FIRST: w[FIRST].to(torch.int32)}), ADAPTER), "stored as I32"),
        "no adapter's weights": (lambda f: (f / ADAPTER).unlink(), "adapter_model.safetensors is missing"),
        "no adapter's config": (lambda f: (f / "adapter_config.json").unlink(), "adapter_config.json is missing"),
        "a pipe": (lambda f: (f / ADAPTER).unlink() or os.mkfifo(f / ADAPTER), "holds a pipe, socket or device"),
        "a link": (
            lambda f: (f / ADAPTER).unlink() or (f / ADAPTER).symlink_to(places.other / "model.safetensors"),
            "holds a link, adapter_model.safetensors",
        ),
        "a pickle of weights": (written("adapter_model.bin", b"x"), "holds adapter_model.bin: only safetensors"),
        "a full model beside it": (
            lambda f: save_file({"a": torch.zeros(2)}, f / "model.safetensors"), "model.safetensors lies beside the ada"
        ),
        "other adapters by path": (
            adapted(peft_type="XLORA", adapters={"a": other}), "of type 'XLORA'; only LoRA, its variants and IA3"
        ),
        "other adapters by path, for all": (adapted(adapters={"a": other}), f"{says} adapters: "),
        "no type": (adapted(peft_type=None), "of type None"),
        "a type that is none": (adapted(peft_type="MAGIC"), "of type 'MAGIC'"),
        "a type that is a list": (adapted(peft_type=["LORA"]), "of type .*LORA"),
        "prompts": (adapted(peft_type="PROMPT_TUNING", num_virtual_tokens=4), "of type 'PROMPT_TUNING'"),
        "prefixes": (adapted(peft_type="PREFIX_TUNING"), "of type 'PREFIX_TUNING'"),
        "a gated prompt": (adapted(peft_type="ADAPTION_PROMPT"), "of type 'ADAPTION_PROMPT'"),
        "another task": (adapted(task_type="SEQ_CLS"), f"{says} task_type: 'SEQ_CLS': only causal"),
        "acts after some tokens": (adapted(alora_invocation_tokens=[3]), f"{says} alora_invocation_tokens"),
        "chooses among adapters": (adapted(arrow_config={"top_k": 1}), f"{says} arrow_config: .*token by token"),
        "repeats layers": (adapted(layer_replication=[[0, 2], [1, 2]]), f"{says} layer_replication: .*another model"),
        "trains biases": (adapted(bias="all"), f"{says} bias: 'all': it would leave the seed's own biases"),
        "a bias of LoRA": (adapted(lora_bias=True), f"{says} lora_bias: True: it cannot be merged"),
        "trains tokens": (adapted(trainable_token_indices=[3]), f"{says} trainable_token_indices"),
        "parameters for targets": (adapted(target_parameters=["w"]), f"{says} target_parameters"),
        "a setting of tomorrow": (adapted(quantum=True), f"{says} quantum: True: no adapter here may set that"),
        "a program's path": (adapted(megatron_core="os"), f"{says} megatron_core: 'os'"),
        "a config for a program": (adapted(megatron_config={"a": 1}), f"{says} megatron_config"),
        "offloads": (adapted(runtime_config={"path": other}), f"{says} runtime_config"),
        "takes a part out of the seed": (adapted(init_lora_weights="pissa"), f"{says} init_lora_weights: 'pissa'"),
        "a quantised start": (adapted(init_lora_weights="loftq"), f"{says} init_lora_weights: 'loftq'"),
        "a start from data": (adapted(eva_config={"rho": 2.0}), f"{says} eva_config"),
        "a rank of 10^9": (adapted(r=10**9), f"{says} r: 1000000000: it must be a number from 1 to 8,192"),
        "a rank below nothing": (adapted(r=-1), f"{says} r: -1: it must be"),
        "a rank of words": (adapted(r="many"), f"{says} r: 'many': it must be"),
        "another rank": (adapted(r=8), r"has shape \(2, 16\), its config promises \(8, 16\)"),
        "a strength of 10^30": (adapted(lora_alpha=1e30), f"{says} lora_alpha: 1e.30: it must be a number below"),
        "a strength that is none": (
            lambda f: (f / "adapter_config.json").write_text('{"peft_type": "LORA", "lora_alpha": NaN}') and None,
            f"{says} lora_alpha: nan",
        ),
        "ranks by a pattern": (adapted(rank_pattern={SLOW: 4}), f"{says} rank_pattern: .*the end of a module's name"),
        "ranks of 10^9 by name": (adapted(rank_pattern={"q_proj": 10**9}), f"{says} rank_pattern: 1000000000"),
        "many ranks by name": (
            adapted(rank_pattern={f"m{n}": 2 for n in range(600)}), f"{says} rank_pattern: .*at most 512 values"
        ),
        "strengths by a pattern": (adapted(alpha_pattern={"(a|b)": 1}), f"{says} alpha_pattern: '.a.b.'"),
        "a pattern that is none": (adapted(target_modules="(("), f"{says} target_modules: '..': .* can be read"),
        "a pattern that is slow": (adapted(target_modules=SLOW), f"{says} target_modules: .*matched within 2 seconds"),
        "a pattern that is long": (adapted(target_modules="a" * 2000), f"{says} target_modules: .*at most 1000"),
        "a pattern without a match": (adapted(target_modules="absent"), "that some module of the seed matches"),
        "modules that are not there": (adapted(target_modules=["absent"]), "does not fit its seed: .*absent"),
        "modules that are patterns": (adapted(target_modules=[".*q_proj"]), f"{says} target_modules: '..q_proj'"),
        "modules that are numbers": (adapted(target_modules=[7]), f"{says} target_modules: 7"),
        "many modules": (adapted(target_modules=["q_proj"] * 10_001), f"{says} target_modules: .*at most 10,000"),
        "more modules than weights": (
            adapted(target_modules=["q_proj", "up_proj", "v_proj"]), "the adapter lacks 4 weights that its config"
        ),
        "layers by a pattern": (
            adapted(layers_to_transform=[0], layers_pattern=SLOW), f"{says} layers_pattern: .*module's name"
        ),
        "layers that are not there": (adapted(layers_to_transform=[99]), "does not fit its seed"),
        "layers below nothing": (adapted(layers_to_transform=[-1]), f"{says} layers_to_transform"),
        "whole modules by a pattern": (adapted(modules_to_save=["l.*d"]), f"{says} modules_to_save: 'l..d'"),
        "whole modules it has not": (adapted(modules_to_save=["lm_head"]), "the adapter lacks 1 weights"),
        "a flag that is none": (adapted(use_dora="yes"), f"{says} use_dora: 'yes': it must be true or false"),
        "a config that is a list": (written("adapter_config.json", "[]"), "adapter_config.json cannot be read"),
        "a config that is deep": (written("adapter_config.json", '{"a":' * 50_000), "adapter_config.json cannot be"),
        "a config that is long": (written("adapter_config.json", " " * 2**21), "adapter_config.json is longer"),
    }  # fmt: skip
