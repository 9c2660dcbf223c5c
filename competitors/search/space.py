"""What a search may vary: keys of an sft recipe, dotted where they lie deeper, and the values each may take."""

from collections.abc import Iterator
from typing import Annotated, Any, get_args

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic.fields import FieldInfo

from cluster.records import Settings, nearest
from competitors.contract import OF_EVERY_KIND
from competitors.sft.recipe import SftRecipe

FIXED = OF_EVERY_KIND
"""What all trials of a search have in common."""


class Range(Settings):
    """Numbers from `low` to `high`, both included; whole ones where both ends are. With `log`, every order of
    magnitude is as likely as every other."""

    low: int | float
    high: int | float
    log: bool = False

    @model_validator(mode="after")
    def _in_order(self) -> "Range":
        if self.low >= self.high:
            raise ValueError(f"low ({self.low:g}) has to be below high ({self.high:g})")
        if self.log and self.low <= 0:
            raise ValueError(f"low ({self.low:g}) has to be above 0 where log is true")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether its values are integers."""
        return isinstance(self.low, int) and isinstance(self.high, int)


def _form(value: Any) -> str:
    return "choice" if isinstance(value, list) else "range"


Choice = Annotated[list[Any], Field(min_length=1)]
Distribution = Annotated[Annotated[Range, Tag("range")] | Annotated[Choice, Tag("choice")], Discriminator(_form)]


def corners(distribution: Range | list[Any]) -> list[Any]:
    """Every value of a choice, both ends of a range: if these make valid recipes, so does what lies between."""
    return [distribution.low, distribution.high] if isinstance(distribution, Range) else distribution


def refuse_unknown(space: dict[str, Any]) -> None:
    """ValueError when a key is not one of the sft recipe, or lies inside another one of the space."""
    known = list(_keys(SftRecipe))
    for key in space:
        head = key.rpartition(".")[0]
        if key not in known and f"{head}.*" not in known:
            raise ValueError(f'space: unknown key "{key}"{nearest(key, [k for k in known if not k.endswith("*")])}')
        if head in space:
            raise ValueError(f"space: {key} is a part of {head}, which is searched as a whole")


def put(settings: dict[str, Any], values: dict[str, Any]) -> dict[str, Any]:
    """A copy of `settings` with each dotted key of `values` set, and whatever else they hold on the way kept."""
    result = dict(settings)
    for key, value in values.items():
        head, _, rest = key.partition(".")
        inner = result.get(head)
        result[head] = put(inner if isinstance(inner, dict) else {}, {rest: value}) if rest else value
    return result


def _keys(record: type[Settings], prefix: str = "") -> Iterator[str]:
    """The keys of a settings record and of those inside it; `key.*` stands for any key below."""
    for name, field in record.model_fields.items():
        if prefix or name not in FIXED:
            key = f"{prefix}{field.alias or name}"
            yield key
            for inner in parts(field):
                if inner is dict:
                    yield f"{key}.*"
                elif issubclass(inner, Settings):
                    yield from _keys(inner, f"{key}.")


def parts(annotation: Any) -> Iterator[type]:
    """The classes that a field's annotation is made of."""
    annotation = annotation.annotation if isinstance(annotation, FieldInfo) else annotation
    origin = getattr(annotation, "__origin__", annotation)
    if isinstance(origin, type):
        yield origin
    if origin is not dict:
        for argument in get_args(annotation):
            yield from parts(argument)
