"""What runs an entry of kind `sft`: training here, or in a gang."""

from competitors.contract import Brief
from competitors.events import Report
from competitors.sft.recipe import SftRecipe


def run(brief: Brief, recipe: SftRecipe, report: Report) -> None:
    """Train as the recipe says and write the submission; imports torch or Ray only now, in the worker."""
    if recipe.is_gang:
        from competitors.sft.ray_train import train_together

        train_together(brief, recipe)
        return
    from competitors.sft.training import train

    train(brief, recipe, report)
