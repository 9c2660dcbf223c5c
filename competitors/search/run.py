"""What runs an entry of kind `search`."""

from competitors.contract import Brief, Report
from competitors.search.recipe import SearchRecipe


def run(brief: Brief, recipe: SearchRecipe, report: Report) -> str:
    """Search, submit and say which values were best; imports Ray Tune only now, in the coordinator."""
    from competitors.search.tune import Search

    return Search(brief, recipe, report).run()
