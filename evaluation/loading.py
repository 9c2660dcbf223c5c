"""Loading models to score or to write with. A full model stays loaded until another one is asked for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from cluster.rounding import Rounding
from evaluation.adapters import merged

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_kept: dict[tuple[Any, ...], Any] = {}


@contextmanager
def loaded(
    folder: Path, adapter: Path | None, dtype: Dtype, note: Callable[[Rounding], None] = lambda rounding: None
) -> Iterator[Any]:
    """The causal language model in `folder`, or the one that the adapter makes of it, merged as it is promoted.

    An adapter on top of its seed computes something else than the model that it is promoted to, and may leave
    something in the seed: so it gets a seed of its own. Forfeit for an adapter that does not fit.
    """
    if adapter is None:
        yield _full_model(folder, dtype)
    else:
        _kept.clear()  # room for this one
        model = merged(folder, adapter, note)
        # As from_pretrained makes it of the file: casting it in place would round more than its weights.
        whole = {"config": model.config, "state_dict": model.state_dict(), "dtype": _chosen(dtype, model.dtype)}
        yield _placed(type(model).from_pretrained(None, **whole))


def _full_model(folder: Path, dtype: Dtype) -> Any:
    """The model in `folder`, kept loaded until another one is asked for."""
    from transformers import AutoConfig, AutoModelForCausalLM

    chosen = _chosen(dtype, AutoConfig.from_pretrained(folder).dtype)
    key = (str(folder.resolve()), chosen, *_versions(folder))
    if key not in _kept:
        _kept.clear()
        _kept[key] = _placed(AutoModelForCausalLM.from_pretrained(folder, dtype=chosen))
    return _kept[key]


def _chosen(dtype: Dtype, stored: Any) -> Any:
    """The torch dtype to compute in: as said, or on a GPU the one that a model is stored in, and float32 on a CPU."""
    import torch

    if dtype != "auto":
        return getattr(torch, dtype)
    return (stored or torch.float32) if torch.cuda.is_available() else torch.float32


def _placed(model: Any) -> Any:
    import torch

    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _versions(folder: Path) -> list[tuple[str, int, int, int]]:
    """What tells apart two models that lay at one path, one after the other."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".json"))
    states = [(file.name, file.stat()) for file in files]
    return [(name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states]
