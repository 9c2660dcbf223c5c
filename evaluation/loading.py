"""Loading models to score or to write with. The last full model stays loaded: a round's adapters stand on one seed.

A submission is only ever its weights: the model is built from its seed's config, and gets them by name.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from cluster.errors import Forfeit
from cluster.text import plain
from evaluation.adapters import is_plain, put_on
from evaluation.asked import empty_model, files_of

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_kept: dict[tuple[Any, ...], Any] = {}


@contextmanager
def loaded(folder: Path, adapter: Path | None, dtype: Dtype, seed: Path | None = None) -> Iterator[Any]:
    """The causal language model in `folder`, with the adapter on it while the block lasts; nothing is merged.

    With `seed`, the folder is a submission's: of it only the weights are read. Raises Forfeit for an adapter that does
    not fit.
    """
    model = _full_model(folder, dtype, seed)
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


def _full_model(folder: Path, dtype: Dtype, seed: Path | None) -> Any:
    """The model in `folder`, kept loaded until another one is asked for: bfloat16 on a GPU, float32 on a CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    cuda = torch.cuda.is_available()
    chosen = dtype if dtype != "auto" else "bfloat16" if cuda else "float32"
    key = (str(folder.resolve()), seed and str(seed.resolve()), chosen, *_versions(folder))
    if key not in _kept:
        _kept.clear()
        wanted = getattr(torch, chosen)
        if seed is None:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=wanted, trust_remote_code=False)
        else:
            model = built(seed, folder, wanted)
        _kept[key] = model.to("cuda" if cuda else "cpu").eval()
    return _kept[key]


def built(seed: Path, submission: Path, dtype: Any) -> Any:
    """The model that the seed's config describes, with the weights of a full submission and nothing else of it."""
    from safetensors import safe_open
    from transformers import AutoConfig

    kind = type(empty_model(seed))
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(file, framework="pt")) for file in files_of(submission)]
        weights = {name: file.get_slice(name) for file in opened for name in file.keys()}  # noqa: SIM118 - no dict
        config = AutoConfig.from_pretrained(seed, trust_remote_code=False)
        model, found = kind.from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True
        )
    if found["missing_keys"]:
        raise Forfeit(plain(f"lacks {min(found['missing_keys'])}, which would be drawn at random"))
    return model


def _versions(folder: Path) -> list[tuple[str, int, int, int]]:
    """What tells apart two models that lay at one path, one after the other."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".json"))
    states = [(file.name, file.stat()) for file in files]
    return [(name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states]
