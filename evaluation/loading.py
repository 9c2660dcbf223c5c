"""Loading models to score or to write with. The last full model stays loaded: a round's adapters stand on one seed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from evaluation.adapters import is_plain, put_on

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_kept: dict[tuple[Any, ...], Any] = {}


@contextmanager
def loaded(folder: Path, adapter: Path | None, dtype: Dtype) -> Iterator[Any]:
    """The causal language model in `folder`, with the adapter on it while the block lasts; nothing is merged.

    Raises Forfeit for an adapter that does not fit.
    """
    model = _full_model(folder, dtype)
    if adapter is None:
        yield model
        return
    try:
        wrapped = put_on(model, adapter)
        yield wrapped.get_base_model()
        wrapped.unload()
        if not is_plain(wrapped.peft_config["default"]):
            _kept.clear()
    except BaseException:
        _kept.clear()  # the model may be left with half an adapter in it
        raise


def _full_model(folder: Path, dtype: Dtype) -> Any:
    """The model in `folder`, kept loaded until another one is asked for: bfloat16 on a GPU, float32 on a CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    cuda = torch.cuda.is_available()
    chosen = dtype if dtype != "auto" else "bfloat16" if cuda else "float32"
    key = (str(folder.resolve()), chosen, *_versions(folder))
    if key not in _kept:
        _kept.clear()
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, chosen))
        _kept[key] = model.to("cuda" if cuda else "cpu").eval()
    return _kept[key]


def _versions(folder: Path) -> list[tuple[str, int, int, int]]:
    """What tells apart two models that lay at one path, one after the other."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".json"))
    states = [(file.name, file.stat()) for file in files]
    return [(name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states]
