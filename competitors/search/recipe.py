"""Competitor of kind `search`: looks for good values of an sft recipe's keys, and trains with them.

The entry's budget is one for all of it. Trials, proposed by Optuna's tree-structured Parzen estimator (Bergstra et
al. 2011) and halved by ASHA (Li et al. 2018, the stopping form), may spend `share` of it: each is given an equal
part, so that even if none were stopped they could not spend more. What they left, `1 - share` and whatever
the stopped ones saved, trains the best values once more from the seed, on a schedule of that length. Trials
are compared on a slice of the training rows that none of them trains on; so is the longer training, and
whichever is best is submitted.
"""

from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from competitors.contract import RecipeBase
from competitors.search.space import FIXED, Distribution, corners, put, refuse_unknown
from competitors.sft.recipe import SftRecipe


class SearchRecipe(RecipeBase):
    """`trials` recipes: that of `recipe` (the keys of kind sft) with values drawn from `space`.

    `resources` are those of one trial; `workers` run side by side. A trial is compared when it has spent `grace`
    of its part, and each time it has spent `reduction` times as much; the upper 1/`reduction` go on.
    """

    kind: Literal["search"]
    recipe: dict[str, Any] = {}
    space: dict[str, Distribution] = Field(min_length=1)
    trials: int = Field(8, ge=2)
    share: float = Field(0.5, gt=0, lt=1)
    grace: float = Field(0.25, gt=0, le=1)
    reduction: int = Field(2, ge=2)
    slice_rows: int = Field(128, ge=1)

    @model_validator(mode="after")
    def _every_recipe_is_valid(self) -> "SearchRecipe":
        refuse_unknown(self.space)
        for key in FIXED & set(self.recipe):
            raise ValueError(f"recipe.{key}: {key} belongs to the search itself")
        if self.resources.cpus == 0:
            raise ValueError("resources.cpus: a trial needs some")
        for key, value, settings in self._corners():
            try:
                made = self.made(settings)
            except ValidationError as error:
                raise ValueError(_where(error, key, value, self.space)) from error
            if made.is_gang:
                raise ValueError("recipe.deepspeed: a trial is one process, no gang")
        return self

    def made(self, values: dict[str, Any]) -> SftRecipe:
        """The sft recipe of a trial with these values for the keys of the space."""
        single = self.resources.model_copy(update={"workers": 1})
        common = {"name": self.name, "kind": "sft", "resources": single}
        return SftRecipe.model_validate(put(self.recipe, values) | common)

    def _corners(self) -> list[tuple[str, Any, dict[str, Any]]]:
        """A key, one of its extreme values, and settings with it, the other keys at their first."""
        first = {key: corners(distribution)[0] for key, distribution in self.space.items()}
        return [(key, v, first | {key: v}) for key, distribution in self.space.items() for v in corners(distribution)]

    def largest(self, size: Callable[[SftRecipe], float]) -> SftRecipe:
        """The trial of the largest `size`, which each key moves in one direction whatever the others are."""

        def of(settings: dict[str, Any]) -> float:
            try:
                return size(self.made(settings))
            except ValidationError:  # values that do not go together: such a trial only fails
                return 0.0

        settings = {key: corners(distribution)[0] for key, distribution in self.space.items()}
        for key, distribution in self.space.items():
            settings = max((settings | {key: value} for value in corners(distribution)), key=of)
        return self.made(settings)

    @property
    def is_gang(self) -> bool:
        """Its trials are processes of their own; the entry's process only coordinates."""
        return True

    @property
    def hands_on_files(self) -> bool:
        """Its trials work wherever they are placed."""
        return True

    @property
    def summary(self) -> str:
        """How many trials over what."""
        return f"{self.trials} trials over {', '.join(self.space)}"

    @property
    def needs_gpu(self) -> str | None:
        """Why no trial could run on a CPU. If some could, those that cannot only fail as trials."""
        reasons = [self.made(settings).needs_gpu for _, _, settings in self._corners()]
        return reasons[0] if all(reasons) else None

    def check(self) -> None:
        """As the sft recipe's."""
        for _, _, settings in self._corners():
            self.made(settings).check()


def _where(error: ValidationError, key: str, value: Any, space: dict[str, Any]) -> str:
    """The first problem of a trial's recipe in the words of the search's own keys."""
    problem = error.errors(include_url=False)[0]
    message = problem["msg"].removeprefix("Value error, ")
    at = ".".join(str(part) for part in problem["loc"])
    if at == key or at.startswith(f"{key}."):
        return f"space.{key}: {value!r} does not fit: {message}"
    if problem["type"] == "missing":
        return f"recipe.{at}: this key is required, here or in space"
    if at in space:
        return f"space.{at}: {message} (with {key}: {value!r})"
    if not at and problem["type"] == "value_error":  # keys that do not go together
        return f"recipe: {message} (with {key}: {value!r})"
    return f"recipe.{at}: {message}" if at else f"recipe: {message}"
