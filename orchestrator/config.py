"""The tournament's config: one YAML file, checked whole before anything runs.

Every problem becomes one `UserError` line naming the file and the key. Importing this module loads neither
torch nor ray nor mlflow.
"""

from collections.abc import Hashable, Iterator
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from cluster.errors import UserError
from cluster.records import Settings, nearest
from cluster.resources import Resources
from competitors.contract import Allowance
from competitors.kinds import RUN, Recipe
from competitors.soup.recipe import SoupRecipe
from orchestrator.field.evolution import Evolution
from orchestrator.field.exploit import Exploit
from orchestrator.field.shorthand import expand
from orchestrator.rounds.racing import Racing

RESERVED_NAMES = ("seed", "champion")
"""A round's folder holds these beside its competitors' folders."""
NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"


class Data(Settings):
    """Where the rows come from, how a row becomes prompt and completion, how many are held out."""

    source: str | list[str]
    prompt: str
    completion: str
    max_tokens: int = Field(1024, ge=8)
    validation: int = Field(1000, ge=1)
    test: int = Field(1000, ge=1)


class Lineage(Settings):
    """A base model that runs its own rounds."""

    name: str = Field(pattern=NAME, max_length=60)
    base: str


class Reference(Settings):
    """A horizontal line in the chart: a model that is only scored, or a published series that is only drawn."""

    name: str = Field(min_length=1)
    model: str | None = None
    prompt: Literal["plain", "chat"] = "plain"
    published: list[float] | None = Field(None, min_length=1, description="test loss by round, round 0 first")

    @model_validator(mode="after")
    def _one_of_two(self) -> "Reference":
        if (self.model is None) == (self.published is None):
            raise ValueError("give either model or published")
        return self


class Budget(Settings):
    """Per competitor and round; whichever ends first. Start-up is not charged."""

    tokens: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    steps: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _some_budget(self) -> "Budget":
        if self.tokens is None and self.minutes is None and self.steps is None:
            raise ValueError("give at least one of tokens, minutes and steps")
        return self

    @property
    def allowance(self) -> Allowance:
        """The same in the units of the contract."""
        seconds = None if self.minutes is None else self.minutes * 60
        return Allowance(tokens=self.tokens, seconds=seconds, steps=self.steps)


class Limits(Settings):
    """What keeps a hanging competitor from holding up a round.

    An entry is ended from outside when it has not begun training after `startup_minutes`, is `grace_minutes`
    over its minutes, or has not reported for `silence_minutes`; its last checkpoint is then its submission.
    """

    startup_minutes: float = Field(30, gt=0)
    grace_minutes: float = Field(5, gt=0)
    silence_minutes: float = Field(30, gt=0)


class Selection(Settings):
    """How winners and champions are chosen."""

    confidence: float = Field(0.95, gt=0.5, lt=1)
    margin_nats: float = Field(0.0, ge=0)
    patience: int | None = Field(None, ge=1, description="rounds without a new champion that end a lineage")
    seed: Literal["winner", "champion"] = "winner"
    resamples: int = Field(4000, ge=200)


class Change(Settings):
    """What changed in the field while the tournament ran, from the start of round `from_round` on, in every lineage.

    `tournament enter`, `withdraw` and `extend` add these to the run directory's tournament.yaml, so running that
    file again repeats them.
    """

    from_round: int = Field(ge=1)
    enter: list[Recipe] = []
    withdraw: str | None = None
    extend: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _one_of_three(self) -> "Change":
        if bool(self.enter) + (self.withdraw is not None) + (self.extend is not None) != 1:
            raise ValueError("give one of enter, withdraw and extend")
        return self


class Evaluation(Settings):
    """The evaluator actors. With 0 cpus they share cores with the trainers instead of reserving their own."""

    resources: Resources = Resources(cpus=0)
    batch_tokens: int = Field(16_384, ge=1)
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    samples: int = Field(3, ge=0, description="test prompts whose completions the report shows before and after")
    sample_tokens: int = Field(64, ge=1)


class Cluster(Settings):
    """`address` as for ray.init: nothing for RAY_ADDRESS or else a local Ray, `auto` for a running one."""

    address: str | None = None
    storage: str | None = None

    @field_validator("storage")
    @classmethod
    def _folder(cls, value: str | None) -> str | None:
        if value is not None and "://" in value:
            raise ValueError(f"{value}: object stores are not supported yet; name a folder that all nodes share")
        return value


class Tracking(Settings):
    """MLflow. Without `uri` a SQLite store beside the run directories."""

    uri: str | None = None
    experiment: str | None = None


class TournamentConfig(Settings):
    """A whole tournament."""

    name: str = Field(pattern=NAME, max_length=60)
    seed: int = 0
    data: Data
    lineages: list[Lineage] = Field(min_length=1)
    references: list[Reference] = []
    rounds: int = Field(ge=1)
    budget: Budget
    competitors: list[Recipe] = Field(min_length=1)
    selection: Selection = Selection()
    evolution: Evolution | None = None
    exploit: Exploit | None = None
    racing: Racing | None = None
    changes: list[Change] = []
    limits: Limits = Limits()
    evaluation: Evaluation = Evaluation()
    cluster: Cluster = Cluster()
    tracking: Tracking = Tracking()

    @model_validator(mode="after")
    def _distinct_names(self) -> "TournamentConfig":
        for recipe in self.competitors:
            if recipe.name in RESERVED_NAMES:
                raise ValueError(f'competitors[{recipe.name}].name: "{recipe.name}" is the name of a folder of ours')
        folders: dict[str, str] = {}
        for reference in self.references:
            other = folders.setdefault(folder_name(reference.name), reference.name)
            if other != reference.name:
                raise ValueError(f'references: "{other}" and "{reference.name}" would lie in one folder')
        for key in ("lineages", "references", "competitors"):
            names = [item.name for item in getattr(self, key)]
            twice = sorted({name for name in names if names.count(name) > 1})
            if twice:
                raise ValueError(f'{key}: two of them are named "{twice[0]}"')
        return self

    @model_validator(mode="after")
    def _soups_blend_what_is_there(self) -> "TournamentConfig":
        names = [recipe.name for recipe in self.competitors]
        for recipe in self.competitors:
            check_soup(recipe, names)
        return self

    @property
    def all_rounds(self) -> int:
        """How many rounds there are to be, with those that were added."""
        return self.rounds + sum(change.extend or 0 for change in self.changes)

    @property
    def slice_rows(self) -> int:
        """How many training rows are kept from all entries, for soups to choose by."""
        return max((r.slice_rows for r in self.competitors if isinstance(r, SoupRecipe) and r.chooses), default=0)

    def rounds_as_of(self, number: int) -> int:
        """How many rounds there were to be when round `number` began."""
        return self.rounds + sum(change.extend or 0 for change in self.changes if change.from_round <= number)

    def to_yaml(self) -> str:
        """The resolved config, every default written out."""
        return yaml.safe_dump(self.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)


def check_soup(recipe: Any, names: list[str]) -> None:
    """ValueError when a soup is to blend a competitor that is not among `names`, or itself."""
    for name in getattr(recipe, "of", None) or []:
        if name not in names or name == recipe.name:
            others = [other for other in names if other != recipe.name]
            raise ValueError(f'competitors[{recipe.name}].of: no other competitor "{name}"{nearest(name, others)}')


def folder_name(name: str) -> str:
    """A reference's name, which may hold any characters, as the name of a folder."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)


class _OnceLoader(yaml.SafeLoader):
    """YAML in which a key may stand only once."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        keys = [key.value for key, _ in node.value]
        twice = [key for key in keys if keys.count(key) > 1]
        if twice:
            line = node.start_mark.line + 1
            raise yaml.YAMLError(f'the key "{twice[0]}" stands twice in the section at line {line}')
        return super().construct_mapping(node, deep)


def load_config(path: Path, overrides: list[str] | None = None) -> TournamentConfig:
    """The checked config at `path`, with `a.b=c` overrides applied. UserError in one line if anything is wrong."""
    raw = read_yaml(path)
    if not isinstance(raw, dict):
        raise UserError(f"{path}: holds no mapping of keys to values")
    for override in overrides or []:
        _apply(raw, override)
    try:
        if isinstance(raw.get("competitors"), list):
            raw["competitors"] = expand(raw["competitors"])
        return TournamentConfig.model_validate(raw)
    except ValidationError as error:
        raise UserError(f"{path}: {explain(error, raw)}") from error
    except UserError as error:
        raise UserError(f"{path}: {error}") from error


def read_yaml(path: Path) -> Any:
    """What the YAML file at `path` holds; UserError when it cannot be read."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _OnceLoader)
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error


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
    value = yaml.safe_load(text)
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


def differences(ours: TournamentConfig, theirs: TournamentConfig) -> list[str]:
    """Where two configs would compute something else, as `key: ours != theirs`.

    Where it runs and where it is tracked may change between one start and the next.
    """
    free = {"cluster", "tracking", "limits", "changes"}
    left, right = (dict(flatten(c.model_dump(mode="json", by_alias=True, exclude=free))) for c in (ours, theirs))
    keys = [*left, *(key for key in right if key not in left)]
    changed = ours.changes != theirs.changes[: len(ours.changes)]  # what was changed there since is on record there
    return (["changes: are others there"] if changed else []) + [
        f"{key}: {left.get(key, 'absent')} is {right.get(key, 'absent')} there"
        for key in keys
        if left.get(key) != right.get(key)
    ]


def flatten(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every plain value of nested dicts and lists with its dotted key; list items go by name where they have one."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from flatten(inner, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
        for index, inner in enumerate(value):
            name = inner.get("name", index) if isinstance(inner, dict) else index
            yield from flatten(inner, f"{prefix}.{name}")
    else:
        yield prefix, value
