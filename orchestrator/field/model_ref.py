"""How a lineage's models are named: `base`, or `competitor@round`."""

from dataclasses import dataclass
from typing import Any, Self

from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema, core_schema


@dataclass(frozen=True)
class ModelRef:
    """A model of a lineage: its base, or what a competitor handed in in a round. In JSON it is what `str` prints."""

    competitor: str | None = None
    round: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """The model that `base` or `competitor@round` names; ValueError for anything else."""
        if text == "base":
            return cls()
        competitor, at, number = text.rpartition("@")
        if not at or not competitor or not number.isdecimal() or int(number) < 1:
            raise ValueError(f'"{text}" names no model: write base or competitor@round')
        return cls(competitor, int(number))

    def __str__(self) -> str:
        return "base" if self.competitor is None else f"{self.competitor}@{self.round}"

    @property
    def is_base(self) -> bool:
        """Whether it is the base model."""
        return self.competitor is None

    @property
    def in_words(self) -> str:
        """As a person says it: `the base model`, or `lora-r16 of round 2`."""
        return "the base model" if self.competitor is None else f"{self.competitor} of round {self.round}"

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        def validate(value: Any) -> ModelRef:
            return value if isinstance(value, ModelRef) else cls.parse(str(value))

        return core_schema.no_info_plain_validator_function(validate, serialization=core_schema.to_string_ser_schema())


BASE = ModelRef()
"""The model that a lineage starts from."""
