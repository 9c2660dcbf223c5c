"""Promotion: a submission becomes a full model folder with the lineage's tokenizer, for the next round to start from.

A folder that we did not make, a submission or the user's own base, is only read. Of a full submission only the weights
are taken: config, index and settings for writing are the seed's, or written anew. A soup gets what it blends in the
same way. Files that are not those that were scored become neither a model nor a part of a soup.
"""

import json
import shutil
from pathlib import Path

from cluster.digest import model_sha256
from cluster.errors import Forfeit
from cluster.libraries import spare_deepspeed
from cluster.store import LOCAL
from evaluation.submissions.adapter_config import rebuilt
from evaluation.submissions.adapters import merged
from evaluation.submissions.asked import asked_by, dtype_of, weights_of
from evaluation.submissions.examination import Form
from evaluation.submissions.folder import ADAPTER_CONFIG, CONFIG, read_object
from evaluation.submissions.weights import ADAPTER, FLOATS, INDEX, WHOLE

GENERATION = "generation_config.json"


def make_full(
    seed: Path, submission: Path, form: Form, tokenizer: Path, out: Path, scored_sha256: str | None = None
) -> str:
    """Make `out` a full model folder of a submission that has passed inspection; return its SHA-256.

    An adapter is merged as it was scored, see `adapters.merged`. A full model's weights are linked, not copied.
    `out` appears whole or not at all. Raises Forfeit when the submission cannot be made a model, or is not the one
    whose SHA-256 was `scored_sha256`.
    """
    from transformers import AutoTokenizer

    if scored_sha256 is not None:
        _refuse_changed(submission, scored_sha256)
    with LOCAL.writing(out) as temporary:
        if form == "full":
            _assemble(submission, seed, temporary)
        else:
            spare_deepspeed()
            merged(seed, submission).save_pretrained(temporary)
        AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False).save_pretrained(temporary)
    return model_sha256(out)


def lend(seed: Path, submission: Path, form: Form, out: Path, scored_sha256: str) -> None:
    """Make `out` what a soup may read of a submission: its weights, linked, under a config that we have written.

    Raises Forfeit when the submission is not the one whose SHA-256 was `scored_sha256`.
    """
    _refuse_changed(submission, scored_sha256)
    with LOCAL.writing(out) as temporary:
        if form == "full":
            _assemble(submission, seed, temporary)
        else:
            settings = rebuilt(read_object(submission / ADAPTER_CONFIG), asked_by(seed).modules)
            LOCAL.link_folder(submission, temporary, {ADAPTER}.__contains__)
            (temporary / ADAPTER_CONFIG).write_text(json.dumps(settings | {"task_type": "CAUSAL_LM"}, indent=1))


def _refuse_changed(submission: Path, scored_sha256: str) -> None:
    if model_sha256(submission) != scored_sha256:
        raise Forfeit("its files are not those that were scored: they were changed since")


def _assemble(submission: Path, seed: Path, out: Path) -> None:
    """The submission's weights under the seed's config, which says in which dtype they are stored."""
    tensors = weights_of(submission)
    files = {tensor.file.name for tensor in tensors.values()}
    LOCAL.link_folder(submission, out, files.__contains__)
    for folder in [path for path in out.iterdir() if path.is_dir()]:  # a checkpoint's files have the same names
        LOCAL.remove(folder)
    if files != {WHOLE}:
        sizes = sum(tensor.count * FLOATS.get(tensor.dtype, 1) for tensor in tensors.values())
        index = {"metadata": {"total_size": sizes}, "weight_map": {name: t.file.name for name, t in tensors.items()}}
        (out / INDEX).write_text(json.dumps(index, indent=1, sort_keys=True))
    config = json.loads((seed / CONFIG).read_bytes())
    config.pop("torch_dtype", None)
    config["dtype"] = dtype_of(tensors)
    (out / CONFIG).write_text(json.dumps(config, indent=2) + "\n")
    if (seed / GENERATION).is_file():
        shutil.copyfile(seed / GENERATION, out / GENERATION)
