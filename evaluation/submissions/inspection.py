"""Inspection: is a submission a whole, finite model that stands on its seed? Run before anything is scored.

A submission that fails is the competitor's own failure (`Forfeit`), said in words. Its files are looked at in a process
of its own; what a library has to say of an adapter is asked afterwards, with settings that we have written and a model
without values. What is scored is always built from the seed's config and read with the lineage's own tokenizer and the
tournament's own `max_tokens`, so a submission cannot change any of them to make its rows easier.
"""

from pathlib import Path

from cluster.errors import Forfeit
from cluster.text import plain
from evaluation.submissions.adapters import try_on
from evaluation.submissions.apart import examine_apart
from evaluation.submissions.asked import Asked, asked_by, weights_of
from evaluation.submissions.examination import Findings, Form, same_values
from evaluation.submissions.faults import of_submission
from evaluation.submissions.folder import CONFIG, read_object
from evaluation.submissions.model_config import refuse_unknown_keys
from evaluation.submissions.weights import FLOATS

__all__ = ["Findings", "Form", "inspect", "inspect_outsider"]

SAME = 0.0


def inspect(
    folder: Path,
    form: Form,
    seed: Path,
    champion: Path | None = None,
    is_control: bool = False,
    hub_links: bool = False,
) -> Findings:
    """Look at a submission; raise `Forfeit` with the reason if it may not be scored.

    `champion` is a model that it may not be a copy of, beside its seed. Only a control may be either.
    """
    asked = asked_by(seed)
    findings = examine_apart(folder, form, asked, hub_links)
    if form == "adapter":
        try_on(folder, seed)
    if not is_control:
        _refuse_copy(folder, form, asked, findings, champion)
    return findings


def inspect_outsider(folder: Path) -> Findings:
    """Look at a full model of another kind than any seed, which a person wants scored. Raises `Forfeit`.

    Its own config is used, so it may hold nothing but what its class knows.
    """
    from transformers import CONFIG_MAPPING

    config = read_object((folder / CONFIG).resolve())
    if config.get("model_type") not in CONFIG_MAPPING:
        raise Forfeit(plain(f"config.json says model_type: {config.get('model_type')!r}, which is not known here"))
    refuse_unknown_keys(config, CONFIG_MAPPING[config["model_type"]]().to_dict())
    with of_submission("the model cannot be loaded", folder):
        asked = asked_by(folder)
    return examine_apart(folder, "full", asked, hub_links=True)


def _refuse_copy(folder: Path, form: Form, asked: Asked, findings: Findings, champion: Path | None) -> None:
    if findings.distance == SAME:
        raise Forfeit("is a copy of its seed: no value differs")
    if form == "adapter" or champion is None:
        return
    ours, theirs = ({asked.key(name): t for name, t in weights_of(one).items()} for one in (folder, champion))
    floats = {key for key, tensor in ours.items() if tensor.dtype in FLOATS and key in theirs}
    if floats and same_values({key: ours[key] for key in floats}, {key: theirs[key] for key in floats}):
        raise Forfeit("is a copy of the champion: no value differs")
