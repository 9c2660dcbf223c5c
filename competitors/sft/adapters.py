"""What a recipe trains of a model: the record of a PEFT adapter, and how names of modules are matched.

Nothing here loads torch or PEFT: it is asked when a config is checked and planned.
"""

import re
from fnmatch import fnmatchcase

from pydantic import Field, ValidationInfo, field_validator, model_validator

from cluster.records import Settings, nearest

LORA_METHODS = ("lora", "dora", "rslora", "pissa", "olora", "orthogonal", "mica", "qlora")
METHODS = (*LORA_METHODS, "ia3")
DEFAULT_RANK = 16

# Methods that take a part out of the seed's weights when they start, and put it into the adapter.
SPLIT_THE_SEED = ("pissa", "olora")


class Adapter(Settings):
    """A PEFT adapter.

    `rank` is 16, `alpha` twice the rank, and `target_modules` every linear layer but the head, unless given.
    IA³ has no rank, and by default rescales what PEFT knows to be keys, values and feed-forward of the
    architecture. `lora_plus_ratio` is the learning rate of LoRA's B in multiples of that of A (LoRA+, Hayou
    et al. 2024).
    """

    method: str
    rank: int | None = Field(None, ge=1, validate_default=True)
    alpha: float | None = Field(None, gt=0)
    dropout: float = Field(0.0, ge=0, lt=1)
    lora_plus_ratio: float | None = Field(None, ge=1)
    target_modules: str | list[str] | None = None
    feedforward_modules: list[str] | None = None
    modules_to_save: list[str] = []

    @field_validator("method")
    @classmethod
    def _known_method(cls, value: str) -> str:
        if value not in METHODS and not re.fullmatch(r"pissa_niter_\d+", value):
            raise ValueError(f'unknown method "{value}"{nearest(value, METHODS)}')
        return value

    @field_validator("rank")
    @classmethod
    def _rank_where_there_is_one(cls, value: int | None, info: ValidationInfo) -> int | None:
        method = info.data.get("method")
        if method == "ia3":
            if value is not None:
                raise ValueError("ia3 has no rank: it learns one factor per key, value and feed-forward unit")
            return None
        value = DEFAULT_RANK if value is None else value
        if method == "orthogonal" and value % 2:
            raise ValueError(f"orthogonal needs an even rank, {value} is odd")
        return value

    @model_validator(mode="after")
    def _goes_together(self) -> "Adapter":
        if self.method == "ia3":
            for key in ("alpha", "dropout", "lora_plus_ratio"):
                if getattr(self, key):
                    raise ValueError(f"{key}: ia3 has none, it is a key of the LoRA methods")
            return self
        if self.feedforward_modules is not None:
            raise ValueError(f"feedforward_modules: a key of ia3, not of {self.method}")
        if self.method == "mica" and self.lora_plus_ratio:
            raise ValueError("lora_plus_ratio: mica trains A only, so B has no rate")
        return self

    @property
    def is_lora(self) -> bool:
        """Whether it is LoRA or one of its variants."""
        return self.method != "ia3"

    @property
    def splits_the_seed(self) -> bool:
        """Whether its start changes the seed's weights, so that what is trained is not yet an adapter over it."""
        return self.method.split("_")[0] in SPLIT_THE_SEED

    @property
    def summary(self) -> str:
        """The method, its rank, and LoRA+'s ratio."""
        plus = f" lora+ {self.lora_plus_ratio:g}" if self.lora_plus_ratio else ""
        return self.method + (f" r{self.rank}" if self.rank else "") + plus


def matches(pattern: str, module: str) -> bool:
    """Whether the glob `pattern` names `module` or one that it lies in: whole, or from any dot on.

    `layers.[0-3]` and `mlp` both match `model.layers.2.mlp.up_proj`.
    """
    parts = module.split(".")
    return any(
        fnmatchcase(".".join(parts[start:end]), pattern)
        for start in range(len(parts))
        for end in range(start + 1, len(parts) + 1)
    )


def names_target(wanted: str | list[str], module: str) -> bool:
    """PEFT's rule: one string is a regular expression for the whole name, a list holds ends of names."""
    if isinstance(wanted, str):
        return re.fullmatch(wanted, module) is not None
    return any(module == name or module.endswith(f".{name}") for name in wanted)


def is_trained(module: str, freeze: list[str], train_only: list[str]) -> bool:
    """Whether full fine-tuning trains the parameters of `module`."""
    if train_only:
        return any(matches(pattern, module) for pattern in train_only)
    return not any(matches(pattern, module) for pattern in freeze)
