"""The config's JSON schema, for editors that complete and check while a config is written.

pydantic's own schema of the whole config, and what YAML allows beyond it because it is written out before pydantic
sees it: `competitors: auto`, clones (`like`), series (`each`) and repeats.
"""

import json
from typing import Any

from competitors.kinds import RUN
from orchestrator.config.loading import AUTO
from orchestrator.config.tournament import TournamentConfig
from orchestrator.field.shorthand import MOST_REPEATS

Json = dict[str, Any]

SCHEMA_FILE = "tournament.schema.json"
"""Its name beside a written config: editors read a relative path as one from the config's folder."""
MODELINE = f"# yaml-language-server: $schema={SCHEMA_FILE}"
"""A config's first line, by which editors find the schema (VS Code's YAML extension, Neovim, Helix, Emacs)."""

_EACH: Json = {
    "type": "object",
    "description": "a series: one competitor for each of these values",
    "properties": {"each": {"type": "array", "minItems": 1}},
    "required": ["each"],
    "additionalProperties": False,
}
_REPEATS: Json = {
    "type": "integer",
    "minimum": 1,
    "maximum": MOST_REPEATS,
    "default": 1,
    "description": "trains it so often, from different random seeds",
}


def schema_text() -> str:
    """What `tournament schema` prints."""
    return json.dumps(config_schema(), indent=1, ensure_ascii=False) + "\n"


def config_schema() -> Json:
    """The schema of what a config's YAML may hold."""
    schema = TournamentConfig.model_json_schema(by_alias=True)
    known: Json = schema["$defs"]
    recipes = {kind: known[_name_of(ref)] for kind, ref in _kinds(schema).items()}
    assert recipes.keys() == RUN.keys()
    sections = {"Adapter", "Resources"}
    for section in [*recipes.values(), *(known[name] for name in sections)]:
        section["properties"] = {key: _or_each(key, value) for key, value in section["properties"].items()}
    for recipe in recipes.values():
        recipe["properties"]["repeats"] = _REPEATS
    known["Each"] = _EACH
    known["Clone"] = _clone(recipes)
    for holder in (schema, known["Change"]):
        key = "competitors" if holder is schema else "enter"
        items = holder["properties"][key]
        # Editors choose by what is required; `discriminator` is OpenAPI's, and they do not know it.
        items["items"] = {"oneOf": [*items["items"]["oneOf"], {"$ref": "#/$defs/Clone"}]}
    competitors = schema["properties"]["competitors"]
    made = {"const": AUTO, "description": "a field made for the base, the data, the budget and the hardware"}
    schema["properties"]["competitors"] = {"anyOf": [made, competitors]}
    schema["$schema"] = "http://json-schema.org/draft-07/schema#"
    schema["title"] = "tournament"
    return schema


def _kinds(schema: Json) -> dict[str, str]:
    """The reference to each kind's recipe."""
    mapping: dict[str, str] = schema["properties"]["competitors"]["items"]["discriminator"]["mapping"]
    return mapping


def _name_of(reference: str) -> str:
    return reference.rpartition("/")[2]


def _or_each(key: str, value: Json) -> Json:
    """A key of a recipe, which may be a series as well; its name and kind may not."""
    if key in ("name", "kind", "space", "repeat_of"):
        return value
    forms: list[Json] = value.get("anyOf", [value])
    forms = [{k: v for k, v in form.items() if k not in ("default", "title", "description")} for form in forms]
    told: Json = {k: value[k] for k in ("default", "description") if k in value}
    return {"anyOf": [*forms, {"$ref": "#/$defs/Each"}], **told}


def _clone(recipes: Json) -> Json:
    """An entry that is like another one: any key of any kind, all of them optional, sections in part."""
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe["properties"] if key != "name")
    return {
        "type": "object",
        "description": "a clone of another competitor, and what differs",
        "properties": {"name": {"type": "string"}, "like": {"type": "string"}} | dict.fromkeys(keys, True),
        "required": ["name", "like"],
        "additionalProperties": False,
    }
