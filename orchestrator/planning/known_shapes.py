"""The sizes of a few models of the hub, so that a plan needs neither their weights nor a network.

Of what is on this machine, or in the hub's cache, the sizes are read; this is for the rest. Sizes are those of the
models' own config.json files as published; `assumed` says where one was not seen.
"""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Known:
    """A Llama of the hub by its sizes."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    key_value_heads: int
    vocabulary: int = 128_256
    context: int = 131_072
    tied: bool = True
    assumed: str = ""
    """Why these may not be its sizes."""


_1B = Known(layers=16, hidden=2048, intermediate=8192, heads=32, key_value_heads=8)
_3B = Known(layers=28, hidden=3072, intermediate=8192, heads=24, key_value_heads=8)
_8B = Known(layers=32, hidden=4096, intermediate=14_336, heads=32, key_value_heads=8, tied=False)
_SN9 = replace(_3B, assumed="described as a 3B model; taken to be as large as Llama 3.2 3B")
KNOWN = {
    "meta-llama/Llama-3.2-1B": _1B,
    "meta-llama/Llama-3.2-1B-Instruct": _1B,
    "meta-llama/Llama-3.2-3B": _3B,
    "meta-llama/Llama-3.2-3B-Instruct": _3B,
    "meta-llama/Llama-3.1-8B": _8B,
    "meta-llama/Llama-3.1-8B-Instruct": _8B,
    "samoline/tensoralchemistdev01__sv17-with-tokenizer": _SN9,
}
