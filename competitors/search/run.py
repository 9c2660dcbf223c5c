"""What runs an entry of kind `search`."""

from competitors.contract import Brief
from competitors.events import Report
from competitors.search.recipe import SearchRecipe


def run(brief: Brief, recipe: SearchRecipe, report: Report) -> str:
    """Search, submit and say which values were best; imports Ray Tune only now, in the coordinator."""
    from competitors.search.coordinator import Search
    from competitors.search.tune import try_values

    search = Search(brief, recipe, report)
    try_values(search)
    return search.submit()
