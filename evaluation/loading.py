"""Loading models to score or to write with. A full model stays loaded until another one is asked for.

A submission is only ever its weights: the model is built from its seed's config, and gets them by name.
"""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Literal

from cluster.errors import Forfeit, UserError
from cluster.on_ray.gpu_memory import kept_until_rest
from cluster.rounding import Rounding
from cluster.text import plain
from evaluation.submissions.adapters import merged
from evaluation.submissions.asked import dtype_of, empty_model, files_of, weights_of
from evaluation.submissions.faults import of_submission

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_kept: dict[tuple[Any, ...], Any] = {}
kept_until_rest(_kept.clear)


@contextmanager
def loaded(
    folder: Path,
    adapter: Path | None,
    dtype: Dtype,
    seed: Path | None = None,
    note: Callable[[Rounding], None] = lambda rounding: None,
) -> Iterator[Any]:
    """The causal language model in `folder`, or the one that the adapter makes of it, merged as it is promoted.

    With `seed`, the folder is a submission's: of it only the weights are read. An adapter on top of its seed computes
    something else than the model that it is promoted to, and may leave something in the seed: so it gets a seed of its
    own. Forfeit for an adapter that does not fit.
    """
    if adapter is None:
        yield _full_model(folder, dtype, seed)
    else:
        _kept.clear()  # room for this one
        model = merged(folder, adapter, note)
        # As from_pretrained makes it of the file: casting it in place would round more than its weights.
        whole = {"config": model.config, "state_dict": model.state_dict(), "dtype": _chosen(dtype, model.dtype)}
        yield _placed(type(model).from_pretrained(None, **whole))


def tokenizer_of(folder: Path) -> Any:
    """The tokenizer in `folder`: a base's or a reference's, and never a submission's. UserError where it is damaged."""
    from transformers import AutoTokenizer

    try:
        with of_submission("its tokenizer cannot be loaded", folder):
            return AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except Forfeit as reason:
        raise UserError(f"{folder}: {reason}") from reason


def _full_model(folder: Path, dtype: Dtype, seed: Path | None) -> Any:
    """The model in `folder`, kept loaded until another one is asked for."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if seed is None:
        stored = AutoConfig.from_pretrained(folder, trust_remote_code=False).dtype
    else:
        stored = _torch(dtype_of(weights_of(folder)))
    chosen = _chosen(dtype, stored)
    key = (
        str(folder.resolve()),
        chosen,
        *_versions(folder),
        *((str(seed.resolve()), *_versions(seed)) if seed else ()),
    )
    if key not in _kept:
        _kept.clear()
        if seed is None:
            model = AutoModelForCausalLM.from_pretrained(folder, dtype=chosen, trust_remote_code=False)
        else:
            model = built(seed, folder, chosen)
        _kept[key] = _placed(model)
    return _kept[key]


def built(seed: Path, submission: Path, dtype: Any) -> Any:
    """The model that the seed's config describes, with the weights of a full submission and nothing else of it."""
    from safetensors import safe_open
    from transformers import AutoConfig

    empty = empty_model(seed)
    prefix = f"{empty.base_model_prefix}."
    # Which say the same as others, and are tied to them again.
    tied = {name.removeprefix(prefix) for name in getattr(empty, "all_tied_weights_keys", None) or ()}
    with ExitStack() as stack:
        opened = [stack.enter_context(safe_open(file, framework="pt")) for file in files_of(submission)]
        names = [(name, file) for file in opened for name in file.keys()]  # noqa: SIM118 - no dict
        weights = {name: file.get_slice(name) for name, file in names if name.removeprefix(prefix) not in tied}
        config = AutoConfig.from_pretrained(seed, trust_remote_code=False)
        model, found = type(empty).from_pretrained(
            None, config=config, state_dict=weights, dtype=dtype, output_loading_info=True
        )
    if found["missing_keys"]:
        raise Forfeit(plain(f"lacks {min(found['missing_keys'])}, which would be drawn at random"))
    return model


def _chosen(dtype: Dtype, stored: Any) -> Any:
    """The torch dtype to compute in: as said, or on a GPU the one that a model is stored in, and float32 on a CPU."""
    import torch

    if dtype != "auto":
        return _torch(dtype)
    return (stored or torch.float32) if torch.cuda.is_available() else torch.float32


def _torch(dtype: str) -> Any:
    import torch

    return getattr(torch, dtype)


def _placed(model: Any) -> Any:
    import torch

    return model.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _versions(folder: Path) -> list[tuple[str, int, int, int]]:
    """What tells apart two models that lay at one path, one after the other."""
    files = sorted(file for file in folder.iterdir() if file.suffix in (".safetensors", ".json"))
    states = [(file.name, file.stat()) for file in files]
    return [(name, state.st_ino, state.st_size, state.st_mtime_ns) for name, state in states]
