"""The documentation agrees with the code: its lists of competitors are valid, its tables of keys are the records',
and its links lead somewhere."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from cluster.records import Settings
from cluster.resources import Resources
from competitors.command.recipe import CommandRecipe
from competitors.contract import RecipeBase
from competitors.kinds import RUN, Recipe
from competitors.python import PythonRecipe
from competitors.search.recipe import SearchRecipe
from competitors.sft.adapters import Adapter
from competitors.sft.recipe import SftRecipe
from competitors.soup.recipe import SoupRecipe
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.shorthand import expand

ROOT = Path(__file__).parents[2]
KINDS = ROOT / "docs" / "competitors"
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md")])
REST = {
    "name": "tournament",
    "data": {"source": "builtin:quickstart", "prompt": "{instruction}\n", "completion": "{response}"},
    "lineages": [{"name": "tiny", "base": "builtin:tiny-bpe"}],
    "rounds": 2,
    "budget": {"tokens": 1000},
}
"""A config but for its competitors."""

FENCED = re.compile(r"^```(.*?)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
KEYS = re.compile(r"^\| key \| default \| meaning \|\n\|---\|---\|---\|\n((?:\|.*\n)+)", re.MULTILINE)


def page_name(page: Path) -> str:
    return str(page.relative_to(ROOT))


def prose(page: Path) -> str:
    """The page without its code."""
    return FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The names that GitHub gives to a page's headings: small letters, no punctuation, - for a space."""
    found: list[str] = []
    for heading in HEADING.findall(prose(page)):
        text = LINK.sub("]", heading).lower().replace(" ", "-")
        name = re.sub(r"[^\w-]", "", text)
        found.append(f"{name}-{found.count(name)}" if name in found else name)
    return set(found)


@pytest.mark.parametrize("page", PAGES, ids=page_name)
def test_links_lead_to_files_and_headings_that_exist(page: Path):
    for link in LINK.findall(prose(page)):
        path, _, anchor = link.partition("#")
        if re.match(r"[a-z]+:", link):
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), f"{page_name(page)} links to {link}: there is no such file"
        if anchor:
            assert anchor in anchors(target), f"{page_name(page)} links to {link}: there is no such heading"


def test_every_kind_has_its_page_and_the_overview_links_it():
    assert {page.stem for page in KINDS.glob("*.md")} == {*RUN, "README"}
    links = LINK.findall(prose(KINDS / "README.md"))
    assert {f"{kind}.md" for kind in RUN} <= set(links)


@pytest.mark.parametrize("page", sorted(KINDS.glob("*.md")), ids=page_name)
def test_lists_of_competitors_are_valid(page: Path):
    """Blocks of YAML there are marked `yaml competitors`, and each is a whole list, to copy into a config."""
    blocks = [(info, text) for info, text in FENCED.findall(page.read_text(encoding="utf-8")) if "yaml" in info]
    assert blocks
    kinds = set()
    for info, text in blocks:
        assert info == "yaml competitors", f"{page_name(page)}: a block is marked {info}"
        items = expand(yaml.safe_load(text))
        recipes = TypeAdapter(list[Recipe]).validate_python(items)
        TournamentConfig.model_validate(REST | {"competitors": items})  # names, and what a soup blends
        kinds |= {recipe.kind for recipe in recipes}
    assert page.stem == "README" or page.stem in kinds


def rows(page: Path) -> Iterator[dict[str, str]]:
    """Each table of keys of a page: the written defaults by key."""
    for table in KEYS.findall(page.read_text(encoding="utf-8")):
        cells = [line.strip("| ").split(" | ") for line in table.splitlines()]
        yield {cell[0].strip("`"): cell[1].strip("`") for cell in cells}


def defaults(record: type[Settings], **required: Any) -> dict[str, Any]:
    """A record's keys as a user writes them, with the values they have when only the required ones are given."""
    made = record.model_validate(required).model_dump(mode="json", by_alias=True)
    return {key: "required" if key in required else value for key, value in made.items()}


TABLES = {
    "sft": [
        defaults(SftRecipe, name="x", kind="sft", learning_rate=1),
        defaults(Adapter, method="lora"),
    ],
    "search": [
        defaults(SearchRecipe, name="x", kind="search", space={"warmup": [0.1, 0.2]}, recipe={"learning_rate": 1})
    ],
    "command": [defaults(CommandRecipe, name="x", kind="command", run="x")],
    "python": [defaults(PythonRecipe, name="x", kind="python", entrypoint="x:x")],
    "soup": [defaults(SoupRecipe, name="x", kind="soup")],
    "unchanged": [],
}


@pytest.mark.parametrize("kind", RUN)
def test_tables_of_keys_hold_every_key_and_its_default(kind: str):
    common = set(RecipeBase.model_fields) | {"kind"}
    tables = list(rows(KINDS / f"{kind}.md"))
    assert len(tables) == len(TABLES[kind])
    for written, known in zip(tables, TABLES[kind], strict=True):
        own = {key: value for key, value in known.items() if key not in common}
        if kind == "search":
            own["recipe"] = {}  # it is given above only so that the record is valid
        assert written.keys() == own.keys()
        for key, value in own.items():
            said = None if written[key] == "none" else yaml.safe_load(written[key])
            assert said == value, f"{kind}: {key} is {value} by default, the page says {written[key]}"


def test_the_overview_has_the_keys_that_all_kinds_share():
    shared, resources = rows(KINDS / "README.md")
    assert shared.keys() == {*RecipeBase.model_fields, "kind"}
    known = Resources().model_dump()
    assert {key: None if value == "none" else yaml.safe_load(value) for key, value in resources.items()} == known
