"""What runs an entry of kind `soup`."""

from competitors.contract import Brief
from competitors.events import Report
from competitors.soup.recipe import SoupRecipe


def run(brief: Brief, recipe: SoupRecipe, report: Report) -> str:
    """Blend the brief's ingredients and say which; imports torch only now, in the worker."""
    from competitors.soup.blend import blend

    return blend(brief, recipe, report)
