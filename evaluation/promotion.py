"""Promotion: a submission becomes a full model folder with the lineage's tokenizer, for the next round to start from.

A folder that we did not make, a submission or the user's own base, is only read.
"""

import shutil
from pathlib import Path

from cluster.digest import model_sha256
from cluster.store import LOCAL
from evaluation.adapters import merged
from evaluation.inspection import Form
from evaluation.weights import INDEX, model_files

GENERATION = "generation_config.json"


def make_full(seed: Path, submission: Path, form: Form, tokenizer: Path, out: Path) -> str:
    """Make `out` a full model folder of a submission that has passed inspection; return its SHA-256.

    An adapter is merged as it was scored, see `adapters.merged`. A full model's weights are linked, not copied.
    `out` appears whole or not at all. Raises Forfeit when the submission cannot be made a model.
    """
    from transformers import AutoTokenizer

    with LOCAL.writing(out) as temporary:
        if form == "full":
            _link(submission, seed, temporary)
        else:
            merged(seed, submission).save_pretrained(temporary)
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(temporary)
    return model_sha256(out)


def _link(submission: Path, seed: Path, out: Path) -> None:
    """The model itself and no more: never the tokenizer, chat template or settings for writing of the competitor."""
    kept = {file.name for file in model_files(submission)} | {"config.json", INDEX}
    LOCAL.link_folder(submission, out, kept.__contains__)
    for folder in [path for path in out.iterdir() if path.is_dir()]:  # a checkpoint's files have the same names
        LOCAL.remove(folder)
    if (seed / GENERATION).is_file():
        shutil.copyfile(seed / GENERATION, out / GENERATION)
