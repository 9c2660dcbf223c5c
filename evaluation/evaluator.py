"""What runs in a warm evaluator: inspect and score one model, make a full model of it, let it write samples.

All functions take plain arguments, so they run with and without Ray. The last full model stays loaded
between calls, since a round's adapters all stand on one seed.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np

from cluster.digest import model_sha256
from cluster.errors import Forfeit
from cluster.records import Record
from cluster.store import LOCAL
from evaluation.inspection import Form, inspect
from evaluation.results import SPLITS, RowResults, write_results
from evaluation.scorecard import Scorecard, SplitScore
from evaluation.scoring import encode_rows, score
from evaluation.splits import Row, read_split

log = logging.getLogger(__name__)

Dtype = Literal["auto", "float32", "bfloat16", "float16"]

_loaded: dict[tuple[str, str], Any] = {}


class ScoringJob(Record):
    """One model to score.

    `model` is a full model's folder; with `adapter`, an adapter's folder that stands on it. `tokenizer` is
    the folder whose tokenizer is used: the lineage's base for submissions, the model's own for references.
    """

    name: str
    model: Path
    adapter: Path | None = None
    tokenizer: Path
    held_out: Path
    max_tokens: int
    batch_tokens: int
    prompt: Literal["plain", "chat"] = "plain"
    dtype: Dtype = "auto"
    out: Path


def score_submission(
    job: ScoringJob, form: Form, seed: Path, progress: Callable[[float], None] = lambda fraction: None
) -> Scorecard:
    """Inspect a submission, then score it. Raises `Forfeit` when the submission itself is at fault."""
    folder = job.adapter or job.model
    inspect(folder, form, seed)
    card = score_model(job, progress)
    if not np.isfinite(card.validation.loss):
        raise Forfeit("its loss on the held-out rows is not finite")
    return card


def score_model(job: ScoringJob, progress: Callable[[float], None] = lambda fraction: None) -> Scorecard:
    """Score a model on both splits; write losses.parquet and then scorecard.json into `job.out`."""
    from transformers import AutoTokenizer

    began = time.monotonic()
    tokenizer = AutoTokenizer.from_pretrained(job.tokenizer)
    pad_id = _pad_id(tokenizer)
    results: dict[str, RowResults] = {}
    scores: dict[str, SplitScore] = {}
    row_ids: dict[str, list[str]] = {}
    with loaded(job.model, job.adapter, job.dtype) as model:
        for index, split in enumerate(SPLITS):
            rows = read_split(job.held_out / f"{split}.parquet")
            encoded = encode_rows(rows, tokenizer, job.max_tokens, chat=job.prompt == "chat")

            def report(fraction: float, before: int = index) -> None:
                progress((before + fraction) / len(SPLITS))

            results[split] = score(model, encoded, job.batch_tokens, pad_id, report)
            row_ids[split] = [row.row_id for row in rows]
            scores[split] = SplitScore.of(results[split], sum(e.cut for e in encoded))
        device, dtype = str(model.device), str(model.dtype).removeprefix("torch.")
    write_results(job.out / "losses.parquet", row_ids, results)
    return Scorecard(
        model=job.name,
        model_sha256=model_sha256(job.adapter or job.model),
        prompt=job.prompt,
        validation=scores["validation"],
        test=scores["test"],
        device=device,
        dtype=dtype,
        seconds=time.monotonic() - began,
    ).write(job.out / "scorecard.json")


def _pad_id(tokenizer: Any) -> int:
    return next(i for i in (tokenizer.pad_token_id, tokenizer.eos_token_id, 0) if i is not None)


def score_slice(job: ScoringJob, rows: int) -> float:
    """Loss on the first `rows` validation rows, in nats per completion token; nothing is written.

    Rows lie in the order of their hashes, so the first ones are a random sample.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(job.tokenizer)
    encoded = encode_rows(read_split(job.held_out / "validation.parquet")[:rows], tokenizer, job.max_tokens)
    with loaded(job.model, job.adapter, job.dtype) as model:
        return score(model, encoded, job.batch_tokens, _pad_id(tokenizer)).loss


@contextmanager
def loaded(folder: Path, adapter: Path | None, dtype: Dtype) -> Iterator[Any]:
    """The causal language model in `folder`, with the adapter on it while the block lasts; nothing is merged."""
    model = _full_model(folder, dtype)
    if adapter is None:
        yield model
        return
    try:
        wrapped = _wrap(model, adapter)
        yield wrapped.get_base_model()
        wrapped.unload()
        if not _is_undone_by_unloading(wrapped.peft_config["default"]):
            _loaded.clear()
    except BaseException:
        _loaded.clear()  # the model may be left with half an adapter in it
        raise


def _is_undone_by_unloading(config: Any) -> bool:
    """Whether a model is as it was after such an adapter has been put on it and unloaded.

    Not so with whole modules replaced or biases trained, which stay in it, nor with PiSSA and its like, which
    take a part out of its weights. So only settings that are known to be harmless are.
    """
    harmless = {
        "base_model_name_or_path", "revision", "task_type", "inference_mode", "auto_mapping", "peft_version",
        "r", "lora_alpha", "lora_dropout", "use_dora", "use_rslora", "rank_pattern", "alpha_pattern",
        "target_modules", "exclude_modules", "feedforward_modules", "layers_to_transform", "layers_pattern",
    }  # fmt: skip
    plain, given = type(config)().to_dict(), config.to_dict()
    return config.peft_type in ("LORA", "IA3") and all(
        given[key] == plain[key] or not given[key] for key in given if key not in harmless
    )


def _full_model(folder: Path, dtype: Dtype) -> Any:
    """The model in `folder`, kept loaded until another one is asked for: bfloat16 on a GPU, float32 on a CPU."""
    import torch
    from transformers import AutoModelForCausalLM

    cuda = torch.cuda.is_available()
    chosen = dtype if dtype != "auto" else "bfloat16" if cuda else "float32"
    key = (str(folder.resolve()), chosen)
    if key not in _loaded:
        _loaded.clear()
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, chosen))
        _loaded[key] = model.to("cuda" if cuda else "cpu").eval()
    return _loaded[key]


def _wrap(model: Any, adapter: Path) -> Any:
    """Put the adapter on the model. What does not fit the seed is the competitor's failure: `Forfeit`."""
    import torch
    from peft import PeftConfig, PeftModel, get_peft_model_state_dict
    from safetensors import safe_open

    try:
        if PeftConfig.from_pretrained(adapter).is_prompt_learning:
            raise Forfeit("is a prompt-learning adapter; only adapters that change weights can be scored")
        wrapped = PeftModel.from_pretrained(model, adapter)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as error:
        first = str(error).strip().splitlines()[0]
        raise Forfeit(f"the adapter does not fit its seed: {first}") from error
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as tensors:
        missing = set(get_peft_model_state_dict(wrapped)) - set(tensors.keys())
    if missing:
        # PEFT only warns, and scores the untrained values instead.
        raise Forfeit(f"the adapter lacks {len(missing)} weights that its config promises, {min(missing)} first")
    return wrapped


def make_full(seed: Path, submission: Path, form: Form, tokenizer: Path, out: Path) -> str:
    """Make `out` a full model folder of a submission, with the lineage's tokenizer; return its SHA-256.

    An adapter is merged in float32 and stored in the seed's dtype. A full model's files are linked, not copied.
    """
    import torch
    from peft import PeftModel
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    if form == "full":
        # Only the model itself: never the tokenizer or the chat template that the competitor may have changed.
        kept = ("config.json", "generation_config.json", ".safetensors", ".safetensors.index.json")
        LOCAL.link_folder(submission, out, lambda name: name.endswith(kept))
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(out)
    else:
        stored = AutoConfig.from_pretrained(seed).dtype or torch.float32
        model = AutoModelForCausalLM.from_pretrained(seed, dtype=torch.float32)
        merged = PeftModel.from_pretrained(model, submission).merge_and_unload(safe_merge=True).to(stored)
        with LOCAL.writing(out) as temporary:
            merged.save_pretrained(temporary)
            AutoTokenizer.from_pretrained(tokenizer).save_pretrained(temporary)
    return model_sha256(out)


def generate(model: Path, tokenizer: Path, prompts: list[str], max_new_tokens: int, dtype: Dtype) -> list[str]:
    """Greedy completions of `prompts`, encoded as in scoring: what a person sees before and after."""
    import torch
    from transformers import AutoTokenizer

    codec = AutoTokenizer.from_pretrained(tokenizer)
    texts = []
    with loaded(model, None, dtype) as network, torch.inference_mode():
        for prompt in prompts:
            start = encode_rows([Row("", prompt, "")], codec, 1_000_000)[0]
            ids = torch.tensor([start.ids[: start.start]], device=network.device)
            pad_id = codec.pad_token_id if codec.pad_token_id is not None else codec.eos_token_id
            written = network.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=codec.eos_token_id,
                pad_token_id=pad_id,
            )
            texts.append(codec.decode(written[0, ids.shape[1] :], skip_special_tokens=True))
    return texts
