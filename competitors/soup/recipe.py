"""Competitor of kind `soup`: an average of submissions that stand on the same seed, trained by nobody.

Averaging the weights of models fine-tuned from one model often beats each of them (Wortsman et al. 2022,
"Model soups", arXiv:2203.05482). Which ones to blend is chosen on training rows, never on held-out ones.
"""

from typing import Literal

from pydantic import Field, model_validator

from competitors.contract import RecipeBase


class SoupRecipe(RecipeBase):
    """`uniform` averages all it may blend (with `best`, only so many of them, by their loss on training rows),
    `greedy` adds one after the other as long as that loss falls. The rest merge what LoRA adapters add to the seed:
    `linear` is the mean of it, and the others keep a share `density` of each (TIES, Yadav et al. 2023; DARE, Yu et al.
    2024)."""

    kind: Literal["soup"]
    method: Literal["uniform", "greedy", "linear", "ties", "dare_linear", "dare_ties"] = "uniform"
    of: list[str] | None = Field(None, min_length=2, description="names of competitors; none: all that train")
    best: int | None = Field(None, ge=2)
    earlier: bool = Field(True, description="also blend earlier rounds' submissions that stand on the same seed")
    slice_rows: int = Field(256, ge=1, description="training rows that choose, kept from all entries")
    density: float = Field(0.5, gt=0, le=1)

    @model_validator(mode="after")
    def _whole(self) -> "SoupRecipe":
        if self.best is not None and self.method != "uniform":
            raise ValueError(f"best: goes with method uniform, not {self.method}")
        return self

    @property
    def chooses(self) -> bool:
        """Whether it needs training rows to choose by."""
        return self.method == "greedy" or self.best is not None

    @property
    def trains(self) -> bool:
        """A soup only averages."""
        return False

    @property
    def summary(self) -> str:
        """Method and what it blends."""
        which = "all" if self.of is None else ", ".join(self.of)
        return f"{self.method} of {f'the best {self.best} of ' if self.best else ''}{which}"
