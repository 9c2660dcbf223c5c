"""Configs of full models that say another model than the seed."""

from tests.unit.evaluation.submissions.zoo.spoiling import Animal, Places, configured, written


def animals(places: Places) -> dict[str, Animal]:
    """By name."""
    other, says = str(places.other), "config.json says"
    return {
        "sees what follows": (configured(is_causal=False), f"{says} is_causal: False"),
        "sees what follows, plainly": (
            configured(is_causal=False, attn_implementation="eager"), f"{says} (is_causal|attn_implementation)"
        ),
        "a kernel from the hub": (
            configured(attn_implementation="kernels-community/flash-attn3"), f"{says} attn_implementation: 'kernels-com"
        ),
        "a kernel, as it is stored": (configured(_attn_implementation="eager"), f"{says} _attn_implementation"),
        "a kernel inside": (configured(attn_implementation_internal="flex"), f"{says} attn_implementation_internal"),
        "code for the config": (
            configured(auto_map={"AutoConfig": "theirs.Config"}), f"{says} auto_map: .*: code of its own is never run"
        ),
        "code for the model": (
            configured(auto_map={"AutoModelForCausalLM": "x--y.Model"}), "code of its own is never run"
        ),
        "code for writing": (configured(custom_generate="x/y"), f"{says} custom_generate: 'x/y': code of its own"),
        "weights that lie elsewhere": (
            configured(transformers_weights=f"{other}/model.safetensors"), f"{says} transformers_weights"
        ),
        "quantised": (
            configured(quantization_config={"quant_method": "gptq", "bits": 4}), f"{says} quantization_config: .*gptq"
        ),
        "compressed": (configured(compression_config={"format": "x"}), f"{says} compression_config"),
        "a distributed plan": (
            configured(base_model_tp_plan={"layers.*.self_attn.q_proj": "rowwise"}), f"{says} base_model_tp_plan"
        ),
        "a pipeline's plan": (configured(base_model_pp_plan={"x": [["a"], ["b"]]}), f"{says} base_model_pp_plan"),
        "an adapter of its own": (configured(adapters={"a": other}), f"{says} adapters"),
        "another family": (configured(model_type="mistral"), f"{says} model_type: 'mistral', the seed is a llama"),
        "a family that is a list": (configured(model_type=["llama"]), f"{says} model_type: "),
        "no family": (configured(model_type=None), f"{says} model_type: None"),
        "two models in one": (
            configured(model_type="encoder-decoder", encoder={"model_type": "bert"}), f"{says} model_type"
        ),
        "a section of its own": (configured(text_config={"num_hidden_layers": 1}), f"{says} text_config"),
        "fewer layers": (configured(num_hidden_layers=1), f"{says} num_hidden_layers: 1, the seed's says 2"),
        "10^9 layers": (configured(num_hidden_layers=10**9), f"{says} num_hidden_layers: 1000000000"),
        "layers that are words": (configured(num_hidden_layers="many"), f"{says} num_hidden_layers: 'many'"),
        "another width": (configured(hidden_size=24), f"{says} hidden_size: 24, the seed's says 16"),
        "more heads": (configured(num_attention_heads=4), f"{says} num_attention_heads: 4"),
        "other head sizes": (configured(head_dim=4), f"{says} head_dim: 4"),
        "fewer keys": (configured(num_key_value_heads=1), f"{says} num_key_value_heads: 1"),
        "another norm": (configured(rms_norm_eps=1e-2), f"{says} rms_norm_eps: 0.01"),
        "another activation": (configured(hidden_act="relu"), f"{says} hidden_act: 'relu', the seed's says 'silu'"),
        "shorter rows": (configured(max_position_embeddings=8), f"{says} max_position_embeddings: 8"),
        "a bias": (configured(attention_bias=True), f"{says} attention_bias: True"),
        "a bias further in": (configured(mlp_bias=True), f"{says} mlp_bias: True"),
        "fewer words": (configured(vocab_size=31), f"{says} vocab_size: 31"),
        "a head apart": (configured(tie_word_embeddings=False), f"{says} tie_word_embeddings: False"),
        "another rope": (
            configured(rope_parameters={"rope_theta": 1e6, "rope_type": "default"}),
            f"{says} rope_parameters.rope_theta: 1000000.0, the seed's says 10000.0",
        ),
        "another kind of rope": (
            configured(rope_parameters={"rope_theta": 1e4, "rope_type": "linear", "factor": 2.0}),
            f"{says} rope_parameters.rope_type: 'linear'",
        ),
        "another rope by its old name": (configured(rope_theta=1e6), f"{says} rope_theta: 1000000.0, .* 10000.0"),
        "a stretched rope by its old name": (
            configured(rope_scaling={"type": "linear", "factor": 2.0}), f"{says} rope_scaling: .*linear"
        ),
        "a part of the rope": (configured(partial_rotary_factor=0.5), f"{says} partial_rotary_factor: 0.5"),
        "layers that slide": (configured(layer_types=["sliding_attention"] * 2), f"{says} layer_types"),
        "a window": (configured(sliding_window=4), f"{says} sliding_window: 4"),
        "capped scores": (configured(final_logit_softcapping=30.0), f"{says} final_logit_softcapping: 30.0"),
        "scaled scores": (configured(logit_scale=2.0), f"{says} logit_scale: 2.0"),
        "another dtype": (configured(dtype="float8_e4m3fn"), f"{says} dtype: 'float8_e4m3fn'"),
        "another dtype by its old name": (configured(torch_dtype="int8"), f"{says} torch_dtype: 'int8'"),
        "a dtype of parts": (configured(dtype={"text_config": "float32"}), f"{says} dtype: "),
        "padding that is no word": (configured(pad_token_id=10**9), f"{says} pad_token_id: 1000000000"),
        "an end that is no word": (configured(eos_token_id=[3, 32]), f"{says} eos_token_id: "),
        "a beginning that is a word": (configured(bos_token_id="<s>"), f"{says} bos_token_id: '<s>'"),
        "pruned": (configured(pruned_heads={"0": [0]}), f"{says} pruned_heads"),
        "a path": (configured(base_model=other), f"{says} base_model: '/"),
        "escapes in a value": (configured(hidden_act="\x1b[31mred\n" * 200), f"{says} hidden_act: "),
        "a config that is a list": (written("config.json", "[]"), "config.json cannot be read: it holds no keys"),
        "a config that is cut off": (written("config.json", '{"model_type": '), "config.json cannot be read"),
        "a config that is no text": (written("config.json", b"\x80\xff"), "config.json cannot be read"),
        "a config that is deep": (written("config.json", '{"a":' * 50_000), "config.json cannot be read"),
        "a config that is long": (written("config.json", " " * 2**21), "config.json is longer than 1,048,576 bytes"),
        "a key twice": (
            written("config.json", '{"model_type": "llama", "is_causal": false, "model_type": "llama"}'),
            "it says model_type twice",
        ),
        "an adapter's config beside it": (
            written("adapter_config.json", f'{{"peft_type": "LORA", "base_model_name_or_path": "{other}"}}'),
            "holds an adapter beside a full model's weights",
        ),
    }  # fmt: skip
