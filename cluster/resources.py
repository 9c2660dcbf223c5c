"""What work asks of the cluster: resources as a user writes them, and the shape of the process that holds them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self

from pydantic import Field, field_validator

from cluster.records import Settings

ACCELERATOR_LABEL = "ray.io/accelerator-type"
"""The label in which a node says its kind of GPU, by Ray's names."""

Size = dict[str, float]
"""Amounts by Ray's names (CPU, GPU, memory in bytes); of a process only those that are not 0."""
GPU, CPU = "GPU", "CPU"
Held = dict[str, float]
"""Devices by kind: GPUs by Ray's names for them, GPU where that is not known; CPU where no GPU is held."""


class Resources(Settings):
    """What one worker of an entry is placed with."""

    workers: int = Field(1, ge=1)
    cpus: float = Field(1, ge=0)
    gpus: float | Literal["auto"] = Field("auto", description="auto: one where the cluster has any, else none")
    memory_gb: float | None = Field(None, gt=0)
    labels: dict[str, str] = Field(
        {},
        description="of its nodes, as Ray's label selectors: ray.io/accelerator-type: H100",
    )

    @field_validator("labels")
    @classmethod
    def _without_spaces(cls, labels: dict[str, str]) -> dict[str, str]:
        """Ray takes a space in `in(a, b)` for a part of the name, so that b matches nothing."""
        return {name: selector.replace(" ", "") for name, selector in labels.items()}

    def gpus_where(self, has_gpus: bool) -> float:
        """GPUs of one worker on a cluster with or without any; `auto` is one whole GPU where there are some."""
        return float(has_gpus) if self.gpus == "auto" else float(self.gpus)

    def resolved(self, has_gpus: bool) -> Self:
        """The same with `gpus: auto` settled."""
        return self.model_copy(update={"gpus": self.gpus_where(has_gpus)})

    def placed_as(self, other: Self) -> Self:
        """The same with the memory and the labels of `other`, which say where it runs and not what it computes."""
        return self.model_copy(update={"memory_gb": other.memory_gb, "labels": other.labels})

    @property
    def size(self) -> Size:
        """What one worker holds. Ask it of `resolved` ones."""
        return _size(self.cpus, self.gpus_where(False), self.memory_gb)

    @property
    def devices(self) -> float:
        """GPUs of all workers together, or their CPUs where they hold no GPU. Ask it of `resolved` ones."""
        return (self.gpus_where(False) or self.cpus) * self.workers


@dataclass(frozen=True)
class Shape:
    """What a call holds while it runs. `role` keeps trainers and evaluators in processes of their own.

    With `gang`, the process itself holds nothing: it coordinates `workers` processes of these resources each,
    which it starts itself on what is reserved for them.
    """

    role: str
    cpus: float
    gpus: float
    memory_gb: float | None = None
    workers: int = 1
    gang: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    """Label selectors of its nodes, by name."""
    one_folder: bool = False
    """Whether a gang's workers all need to see one folder."""
    shares_disk: bool = True
    """Whether its nodes see one disk. If not, a gang's coordinator stands beside the first worker, whose files it
    sees, and a gang of `one_folder` stands on one node."""

    @classmethod
    def of(cls, role: str, resources: Resources, has_gpus: bool, gang: bool = False) -> Self:
        """The shape of a process of that role with these resources on a cluster with or without GPUs."""
        gpus = resources.gpus_where(has_gpus)
        labels = tuple(sorted(resources.labels.items()))
        return cls(role, resources.cpus, gpus, resources.memory_gb, resources.workers, gang, labels)

    @property
    def one_node(self) -> bool:
        """Whether its workers have to stand together."""
        return self.one_folder and not self.shares_disk

    @cached_property
    def need(self) -> tuple[Any, ...]:
        """What it asks of the cluster, whoever works there."""
        return self.cpus, self.gpus, self.memory_gb, self.workers, self.gang, self.labels, self.one_node

    @cached_property
    def size(self) -> Size:
        """Of one worker."""
        return _size(self.cpus, self.gpus, self.memory_gb)

    def held(self, kinds: Sequence[str] = ()) -> Held:
        """The devices of all its workers. `kinds` are those of the GPUs of each one's node, where known."""
        if not self.gpus:
            return {CPU: self.cpus * self.workers} if self.cpus else {}
        known = [kind or GPU for kind in kinds] + [GPU] * self.workers
        return {kind: count * self.gpus for kind, count in Counter(known[: self.workers]).items()}

    @property
    def words(self) -> str:
        """What it asks for."""
        one = amounts_in_words(self.size, self.size)
        where = f" on nodes with {', '.join(map('='.join, self.labels))}" if self.labels else ""
        together = " on one node" if self.one_node and self.workers > 1 else ""
        return (f"{self.workers} workers of {one} each" if self.workers > 1 else one) + together + where


def _size(cpus: float, gpus: float, memory_gb: float | None) -> Size:
    amounts = {"CPU": cpus, "GPU": gpus, "memory": int((memory_gb or 0) * 2**30)}  # Ray wants whole bytes
    return {name: amount for name, amount in amounts.items() if amount}


def amounts_in_words(names: Iterable[str], amounts: Size) -> str:
    """So much of each of `names`."""
    return ", ".join(_in_words(name, amounts.get(name)) for name in names)


def _in_words(name: str, amount: float | None) -> str:
    if name != "memory":
        return f"{amount or 0:g} {name}"
    return "unknown memory" if amount is None else f"{amount / 2**30:.3g} GB memory"
