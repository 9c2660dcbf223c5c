"""A model is saved without what nobody uses."""

import subprocess
import sys
from pathlib import Path

SAVED = """
import sys
from transformers import LlamaConfig, LlamaForCausalLM
from cluster.libraries import spare_deepspeed
spare_deepspeed()
model = LlamaForCausalLM(LlamaConfig(vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=1,
    num_attention_heads=1))
model.save_pretrained(sys.argv[1])
print({"deepspeed", "mlflow"} & set(sys.modules))
"""


def test_saving_a_model_loads_neither_deepspeed_nor_mlflow(tmp_path: Path):
    done = subprocess.run([sys.executable, "-c", SAVED, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
    assert (tmp_path / "model.safetensors").is_file()


def test_where_deepspeed_is_loaded_its_engines_are_unwrapped():
    from accelerate.utils import other

    from cluster.libraries import spare_deepspeed

    spare_deepspeed()
    import deepspeed
    import torch

    inner = torch.nn.Linear(1, 1)
    engine = deepspeed.DeepSpeedEngine.__new__(deepspeed.DeepSpeedEngine)
    torch.nn.Module.__init__(engine)
    engine.module = inner
    assert other.extract_model_from_parallel(engine) is inner
