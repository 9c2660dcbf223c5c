"""The output head where a completion token is predicted, and nowhere else.

On a GPU that is TRL's fused head, which never has the logits of more than a tile. On a CPU TRL scores every
position; there the hidden states are selected first, and torch's chunked `linear_cross_entropy` does the rest. Where
an architecture does more with the last hidden state than a linear layer, and TRL does not know it either, the
model's ordinary forward pass is asked for all logits. Each way gives the same loss.
"""

import types
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import LinearCrossEntropyOptions
from torch.nn.functional import cross_entropy, linear_cross_entropy

from competitors.sft.passes import CHUNK_OF_LOGITS_BYTES
from competitors.sft.stream import IGNORED

SCALINGS = ("final_logit_softcapping", "logit_scale", "output_multiplier", "lm_head_multiplier", "logits_scaling")
"""Keys of a model's config by which its head is no plain linear layer; TRL knows them."""
PROBE_TOKENS = 8
FEW_LOGITS_BYTES = 2**22
"""In so few, chunks cost more than they save; in more, they are also the more exact: torch's plain cross-entropy adds
up a large vocabulary with an error of some 1e-6 nats."""


class Summed(NamedTuple):
    """What a forward pass gives."""

    nats: torch.Tensor
    """Negative log-likelihood, summed over the tokens that the batch predicts."""
    auxiliary: torch.Tensor | None = None
    """A mixture of experts' load-balancing loss, where its config asks for it."""


Way = Callable[[Any, dict[str, Any]], Summed]
"""From a model, however wrapped, and a batch with labels."""


def fused(model: Any, batch: dict[str, Any]) -> Summed:
    """TRL's head (`trl.trainer.utils.add_fused_lm_head`)."""
    outputs = model(**batch, use_cache=False, fused_lm_head=True)
    return Summed(-outputs.log_probs.sum(), outputs.aux_loss)


def selected(model: Any, batch: dict[str, Any]) -> Summed:
    """The head of a model that `add_selected_head` was called on."""
    return Summed(model(**batch, use_cache=False, selected_head=True))


def ordinary(model: Any, batch: dict[str, Any]) -> Summed:
    """All logits."""
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    logits = model(**inputs, use_cache=False).logits[:, :-1].flatten(0, 1).float()
    return Summed(cross_entropy(logits, batch["labels"][:, 1:].flatten(), ignore_index=IGNORED, reduction="sum"))


def add_selected_head(model: Any) -> None:
    """Let the forward of a causal language model (without a PEFT model around it) take `selected_head=True`."""
    inner = model.forward

    def forward(self: Any, *args: Any, selected_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not selected_head:
            return inner(*args, **kwargs) if labels is None else inner(*args, labels=labels, **kwargs)
        hidden = self.base_model(*args, **kwargs).last_hidden_state[:, :-1]
        return summed_nats(hidden, self.get_output_embeddings(), labels[:, 1:])

    model.forward = types.MethodType(forward, model)


def summed_nats(hidden: torch.Tensor, head: Any, targets: torch.Tensor) -> torch.Tensor:
    """-log p of the targets that are not ignored, summed. Shapes (rows, length, width) and (rows, length)."""
    is_predicted = targets != IGNORED
    chosen = hidden[is_predicted]
    if not len(chosen):
        nothing: torch.Tensor = (hidden.sum() + head.weight.sum()) * 0.0  # a gradient has to come, if of zeros
        return nothing
    row_bytes = 4 * head.weight.shape[0]
    options = LinearCrossEntropyOptions(batch_chunk_size=max(1, CHUNK_OF_LOGITS_BYTES // row_bytes))
    is_small = len(chosen) * row_bytes <= FEW_LOGITS_BYTES
    bias = getattr(head, "bias", None)
    return linear_cross_entropy(
        chosen,
        head.weight,
        targets[is_predicted],
        linear_bias=bias,
        reduction="sum",
        options=None if is_small else options,
    )


@torch.no_grad()
def choose(model: Any, stays_on_cpu: bool = True) -> tuple[Way, str | None]:
    """How to compute the loss of `model`, which TRL's trainer has prepared, and what there is to say about it.

    Tried out on a few tokens against the ordinary forward pass, since architectures differ in more than their
    configs tell. Call it before a model's weights are cut up, and under the autocast of training. One that is on the
    CPU only now trains on a GPU's way.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    if stays_on_cpu and base.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and _is_plain(base):
        add_selected_head(base)
        ways = [selected, fused]
    else:
        ways = [fused]
    config = base.config.get_text_config()
    ids = torch.arange(PROBE_TOKENS, device=base.device)[None] % config.vocab_size
    training = model.training
    model.eval()
    try:
        right = ordinary(model, {"input_ids": ids, "labels": ids}).nats
        for way in ways:
            if torch.allclose(way(model, {"input_ids": ids, "labels": ids}).nats, right, rtol=_tolerance(base)):
                return way, None
    finally:
        model.train(training)
    return ordinary, "its head is not a linear layer on the last hidden state: the loss takes the logits of all tokens"


def _is_plain(base: Any) -> bool:
    """Whether nothing but a linear layer of the model's own dtype is known to come after the last hidden state."""
    config = base.config.get_text_config()
    weight = getattr(base.get_output_embeddings(), "weight", None)
    known = any(getattr(config, key, None) is not None for key in SCALINGS)
    experts = getattr(config, "output_router_logits", False)
    return not known and not experts and weight is not None and weight.dtype == torch.float32


def _tolerance(base: Any) -> float:
    is_exact = base.dtype == torch.float32 and not torch.is_autocast_enabled(base.device.type)
    return 1e-4 if is_exact else 0.03
