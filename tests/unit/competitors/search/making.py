"""What tests of searches make."""

from typing import Any

from competitors.search.recipe import SearchRecipe

RATES = {"learning_rate": {"low": 1e-4, "high": 0.1, "log": True}}


def recipe(**settings: Any) -> SearchRecipe:
    """A search over the learning rate, unless it is said over what."""
    return SearchRecipe.model_validate({"name": "s", "kind": "search", "space": RATES} | settings)
