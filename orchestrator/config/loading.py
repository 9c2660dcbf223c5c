"""Reading YAML that a user wrote: a config, or entries that join later. Every mistake is one `UserError` line."""

import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from cluster.environment import is_credential
from cluster.errors import UserError
from cluster.records import nearest
from competitors.kinds import RUN, Recipe
from orchestrator.config.tournament import RESERVED_NAMES, TournamentConfig, check_soup
from orchestrator.field.shorthand import expand

AUTO = "auto"
"""`competitors: auto`: the field is made for the base, the data, the budget and the hardware."""
STAND_IN = {"name": AUTO, "kind": "sft", "learning_rate": 1e-3}

MakeField = Callable[[TournamentConfig], list[Recipe]]
"""Makes the field of a config that leaves it to us; that config's own competitors only stand in for it."""


class _OnceLoader(yaml.SafeLoader):
    """YAML in which a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f'the key "{twice[0]}" stands twice in the section at line {line}')
        return super().construct_mapping(node, deep)


def load_config(
    path: Path, overrides: list[str] | None = None, make_field: MakeField | None = None
) -> TournamentConfig:
    """The checked config at `path`, with `a.b=c` overrides applied, and its competitors written out.

    `make_field` is asked where they are `auto`. UserError in one line if anything is wrong.
    """
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: holds no mapping of keys to values")
    for override in overrides or []:
        _apply(raw, override)
    _refuse_credentials(path, raw)
    try:
        if isinstance(raw.get("competitors"), list):
            raw["competitors"] = expand(raw["competitors"])
        elif raw.get("competitors") == AUTO:
            return _with_field(raw, make_field)
        return TournamentConfig.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, raw)}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def _with_field(raw: dict[str, Any], make_field: MakeField | None) -> TournamentConfig:
    """The config with the field that `make_field` makes for it; whatever else is wrong with it is said first."""
    if make_field is None:
        raise UserError("competitors: auto: nobody is here to make a field; give a list of recipes")
    config = TournamentConfig.model_validate(raw | {"competitors": [STAND_IN]})
    made = [recipe.model_dump(mode="json", by_alias=True) for recipe in make_field(config)]
    return TournamentConfig.model_validate(raw | {"competitors": made, "competitors_by": AUTO})


def read_yaml(path: Path) -> Any:
    """What the YAML file at `path` holds; UserError when it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


def _refuse_credentials(path: Path, node: Any, where: str = "") -> None:
    """UserError where a config holds what logs in somewhere: it goes into the record, to MLflow and to workers."""
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, value in items:
        named = value["name"] if isinstance(key, int) and isinstance(value, dict) and "name" in value else key
        inside = f"{where}[{named}]" if isinstance(node, list) else f"{where}.{key}" if where else str(key)
        if not isinstance(value, dict | list) and is_credential(
            str(key) if where.endswith("environment") else "", str(value)
        ):
            raise UserError(
                f"{path}: {inside}: holds a password or the like, and the config is on record: leave it to the"
                " environment (MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, PGPASSWORD, HF_TOKEN, AWS_…),"
                " a program's to a file that it may read"
            )
        _refuse_credentials(path, value, inside)


def explain(error: ValidationError, raw: Any) -> str:
    """The first problem in one line: the key, with list items by their names, and what is wrong with it."""
    problems = error.errors(include_url=False, include_context=False)
    first = next((p for p in problems if p["type"] == "unknown_key"), problems[0])
    where, node = "", raw
    for part in first["loc"]:
        if isinstance(node, dict) and part in node:
            node = node[part]
            where += f".{part}" if where else str(part)
        elif isinstance(node, list) and isinstance(part, int) and part < len(node):
            node = node[part]
            named = isinstance(node, dict) and "name" in node
            where += f"[{node['name']}]" if named else f"[{part}]"
        elif part == first["loc"][-1] and first["type"] == "missing":
            where += f".{part}" if where else str(part)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "union_tag_invalid":
        kind = first["input"].get("kind")
        return f'{where}: unknown kind "{kind}"{nearest(str(kind), RUN)}'
    message = "this key is required" if first["type"] == "missing" else message
    got = "" if first["type"] in {"missing", "unknown_key", "value_error"} else f" (got {str(first['input'])[:60]})"
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{where}: {message}{got}{more}" if where else f"{message}{got}{more}"


def _apply(raw: dict[str, Any], override: str) -> None:
    """Set one `a.b=c`; list items go by number or by their name."""
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"--set {override}: write it as key=value")
    node: Any = raw
    *parents, last = key.split(".")
    for part in parents:
        if isinstance(node, list):
            node = node[_item(node, part, override)]
        elif isinstance(node, dict):
            node = node.setdefault(part, {})
        else:
            raise UserError(f"--set {override}: {part} lies below a plain value")
    try:
        value = yaml.load(text, _OnceLoader)
    except yaml.YAMLError as error:
        raise UserError(f"--set {override}: not valid YAML: {' '.join(str(error).split())}") from error
    if isinstance(node, list):
        node[_item(node, last, override)] = value
    elif isinstance(node, dict):
        node[last] = value
    else:
        raise UserError(f"--set {override}: {last} lies below a plain value")


def _item(items: list[Any], part: str, override: str) -> int:
    for index, item in enumerate(items):
        if part == str(index) or (isinstance(item, dict) and item.get("name") == part):
            return index
    raise UserError(f'--set {override}: no item "{part}"')


def load_entries(path: Path, there: Mapping[str, Recipe]) -> list[Recipe]:
    """The checked recipes in `path`, with all short forms written out. UserError in one line for any mistake.

    `there` are the recipes that compete now: a `like` may name one. Relative paths are meant from the file's folder,
    and are made absolute, since the file is read only once.
    """
    raw = read_yaml(path)
    known = {name: recipe.model_dump(mode="json", by_alias=True) for name, recipe in there.items()}
    _refuse_credentials(path, raw)
    items: list[Any] = raw if isinstance(raw, list) else [raw]
    if not items or not all(isinstance(item, dict) for item in items):
        raise UserError(f"{path}: holds neither a competitor nor a list of them")
    try:
        items = expand(items, known)
        recipes = TypeAdapter(list[Recipe]).validate_python(items)
        names = [*there, *(recipe.name for recipe in recipes)]
        for recipe in recipes:
            if names.count(recipe.name) > 1:
                raise UserError(f"competitors[{recipe.name}].name: the name is taken")
            if recipe.name in RESERVED_NAMES:
                raise UserError(f"competitors[{recipe.name}].name: this is the name of a folder of ours")
            check_soup(recipe, names)
            recipe.located(path.absolute().parent).check()
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, items)}") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}") from error
    return [recipe.located(path.absolute().parent) for recipe in recipes]


def with_uri_of_environment(config: TournamentConfig) -> TournamentConfig:
    """`config` with MLflow's own MLFLOW_TRACKING_URI where it names no store, for the record to say which one it was. A
    relative SQLite path starts in the working folder, as MLflow reads it."""
    uri = os.environ.get("MLFLOW_TRACKING_URI")
    if config.tracking.uri is not None or not uri:
        return config
    if uri.startswith("sqlite:///"):
        uri = f"sqlite:///{Path(uri.removeprefix('sqlite:///')).absolute()}"
    return config.model_copy(update={"tracking": config.tracking.model_copy(update={"uri": uri})})
