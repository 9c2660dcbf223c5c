"""The whole config of a tournament, checked: what its sections have to agree on."""

from collections import Counter
from collections.abc import Sequence
from typing import Any, Literal

import yaml
from pydantic import Field, ValidationInfo, model_validator

from cluster.records import Settings, nearest
from competitors.kinds import Recipe
from competitors.sft.recipe import SftRecipe
from competitors.soup.recipe import SoupRecipe
from evaluation.data.split import Split, choosing, held_out_splits
from evaluation.figures import FIGURES
from evaluation.scorecard import SplitScore
from orchestrator.config.sections import (
    NAME,
    Budget,
    Cluster,
    Data,
    Evaluation,
    Limits,
    Lineage,
    Racing,
    Reference,
    Selection,
    Tracking,
)
from orchestrator.field.changes import Change, rounds_in_all
from orchestrator.field.evolution import Evolution
from orchestrator.field.exploit import Exploit
from orchestrator.field.whole_budget import Allocation

RESERVED_NAMES = (
    "seed", "champion", "seed.json", "champion.json", "roster.json", "verdict.json", "samples.json", "base-check",
    "lent",
)  # fmt: skip
"""A round's folder holds these files and folders beside its competitors' folders."""

DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The one in C, as for reading: of a thousand competitors the other takes seconds."""


ON_RECORD = {"is_on_record": True}
"""The context in which a run's own config is validated: what was accepted when it began is not refused now."""


def is_on_record(info: ValidationInfo) -> bool:
    """Whether a config is one that a run began with."""
    return bool(info.context and info.context.get("is_on_record"))


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
    competitors_by: Literal["hand", "auto"] = Field("hand", description="set where `competitors: auto` was written out")
    allocation: Allocation = Allocation()
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
    def _distinct_names(self, info: ValidationInfo) -> "TournamentConfig":
        for recipe in self.competitors:
            if recipe.name in RESERVED_NAMES:
                raise ValueError(f'competitors[{recipe.name}].name: "{recipe.name}" is the name of a folder of ours')
        models = [] if is_on_record(info) else self.models
        for named in ([(f"references[{one.name}].name", one.name) for one in self.references], models):
            folders: dict[str, tuple[str, str]] = {}
            for key, name in named:
                other = folders.setdefault(folder_name(name), (key, name))
                if other[1] != name:
                    raise ValueError(f'{other[0]} and {key}: "{other[1]}" and "{name}" would lie in one folder')
        for key in ("lineages", "references", "competitors"):
            names = [item.name for item in getattr(self, key)]
            twice = sorted(name for name, count in Counter(names).items() if count > 1)
            if twice:
                raise ValueError(f'{key}: two of them are named "{twice[0]}"')
        return self

    @model_validator(mode="after")
    def _soups_blend_what_is_there(self) -> "TournamentConfig":
        names = [recipe.name for recipe in self.competitors]
        for recipe in self.competitors:
            check_soup(recipe, names)
        return self

    @model_validator(mode="after")
    def _metrics_are_measured(self) -> "TournamentConfig":
        tasks, rules = [one.task for one in self.evaluation.harness], self.selection
        for task in tasks:
            if tasks.count(task) > 1 or task in FIGURES or task in SplitScore.model_fields:
                raise ValueError(f'evaluation.harness: the name "{task}" is taken')
        asked = {"selection.metric": rules.metric}
        asked |= {f"selection.guardrails[{number}].metric": one.metric for number, one in enumerate(rules.guardrails)}
        for key, name in asked.items():
            if name not in (known := [*FIGURES, *tasks]):
                raise ValueError(f'{key}: there is no figure and no task "{name}"{nearest(name, known)}')
            if name == "perplexity":
                raise ValueError(f"{key}: perplexity says what the loss says: name that")
            if not self.evaluation.written_rows and name in FIGURES and FIGURES[name].judge is not None:
                raise ValueError(f"{key}: {name} is measured where evaluation.written_rows is not 0")
        if rules.metric in tasks and self.data.rotates:
            raise ValueError(f"data.validation.rotate: goes with rows, and the documents of {rules.metric} choose")
        if rules.metric != "loss" and rules.margin_nats:
            raise ValueError(f"selection.margin_nats: goes with the loss, and {rules.metric} chooses")
        return self

    @model_validator(mode="after")
    def _repeats_are_fair_samples(self) -> "TournamentConfig":
        entered = [recipe for change in self.changes for recipe in change.enter]
        check_repeats([*self.competitors, *entered])
        if any(recipe.repeat_of for recipe in (*self.competitors, *entered)):
            for key in ("evolution", "exploit", "racing"):
                if getattr(self, key) is not None:
                    raise ValueError(
                        f"{key}: does not go with `repeats`: it would choose among the runs of a recipe by their"
                        " losses, and what is left of them is no fair sample"
                    )
        return self

    @model_validator(mode="after")
    def _allocation_decides_alone(self) -> "TournamentConfig":
        if not self.is_allocated:
            return self
        decided = {
            "evolution": self.evolution,
            "exploit": self.exploit,
            "selection.patience": self.selection.patience,
            "selection.seed": self.selection.seed if self.selection.seed != "winner" else None,
        }
        for key, value in decided.items():
            if value is not None:
                raise ValueError(f"{key}: goes with equal rounds; a whole budget is shared out by the allocation")
        if self.rounds < 2:
            raise ValueError("rounds: a whole budget needs at least 2, one to race and one to go on with what won")
        if self.budget.total_gpu_hours is not None:
            for recipe in self.competitors:
                if recipe.trains and recipe.resources.gpus == 0:
                    raise ValueError(f"competitors[{recipe.name}].resources.gpus: without any it spends no GPU hours")
        return self

    @model_validator(mode="after")
    def _everything_has_an_effect(self, info: ValidationInfo) -> "TournamentConfig":
        if is_on_record(info):
            return self
        everybody = [*self.competitors, *(recipe for change in self.changes for recipe in change.enter)]
        if self.evolution is not None and not any(isinstance(recipe, SftRecipe) for recipe in everybody):
            raise ValueError("evolution: goes with recipes of kind sft, and there is none")
        if not any(recipe.trains for recipe in everybody):
            for key, value in (("racing", self.racing), ("exploit", self.exploit), ("budget", self.budget.whole)):
                if value is not None:
                    what = "a whole budget goes" if key == "budget" else "goes"
                    raise ValueError(f"{key}: {what} with competitors that train, and there is none")
        if self.budget.whole is None and self.allocation != Allocation():
            raise ValueError("allocation: goes with a whole budget: total_tokens or total_gpu_hours")
        return self

    @model_validator(mode="after")
    def _changes_could_be_made(self, info: ValidationInfo) -> "TournamentConfig":
        """As `tournament enter` would have them. A soup may blend what evolution will have made, which is not known."""
        if is_on_record(info):
            return self
        if self.changes and self.budget.whole is not None:
            raise ValueError("changes: a whole budget is shared out among its first competitors")
        names = {recipe.name for recipe in self.competitors}
        for number, change in enumerate(self.changes):
            for recipe in change.enter:
                if recipe.name in RESERVED_NAMES:
                    raise ValueError(f'changes[{number}].enter: "{recipe.name}" is the name of a folder of ours')
                if recipe.name in names:
                    raise ValueError(f'changes[{number}].enter: the name "{recipe.name}" is taken')
                names.add(recipe.name)
        return self

    @model_validator(mode="after")
    def _limit_has_prices(self) -> "TournamentConfig":
        if self.limits.cost is not None and not self.cluster.prices:
            raise ValueError("limits.cost: goes with cluster.prices, such as {H100: 3.5}, of an hour of a GPU")
        return self

    @property
    def models(self) -> list[tuple[str, str]]:
        """Every model that is named, with the key that names it."""
        bases = [(f"lineages[{x.name}].base", x.base) for x in self.lineages]
        return bases + [(f"references[{r.name}].model", r.model) for r in self.references if r.model is not None]

    @property
    def is_allocated(self) -> bool:
        """Whether the allocation decides who enters a round: with a whole budget, unless its rounds are equal."""
        return self.budget.whole is not None and self.allocation.kind == "race"

    @property
    def all_rounds(self) -> int:
        """How many rounds there are to be, with those that were added."""
        return rounds_in_all(self.rounds, self.changes)

    @property
    def turns(self) -> int:
        """How many rounds have rows of their own to choose by; those that were added take the first ones' again."""
        return self.rounds if self.data.rotates else 1

    def choosing(self, number: int) -> Split:
        """The split that chooses in round `number`; round 0 is the base's."""
        return choosing(max(number - 1, 0) % self.turns)

    @property
    def held_out_rows(self) -> int:
        """Of all splits together."""
        return sum(held_out_splits(self.data.validation_rows, self.data.test, self.turns).values())

    @property
    def slice_rows(self) -> int:
        """How many training rows are kept from all entries, for soups to choose by."""
        return max((r.slice_rows for r in self.competitors if isinstance(r, SoupRecipe) and r.chooses), default=0)

    def rounds_as_of(self, number: int) -> int:
        """How many rounds there were to be when round `number` began."""
        return rounds_in_all(self.rounds, self.changes, number)

    def to_yaml(self) -> str:
        """The resolved config, every default written out."""
        raw = self.model_dump(mode="json", by_alias=True)
        text: str = yaml.dump(raw, Dumper=DUMPER, sort_keys=False, allow_unicode=True)
        return text


def check_soup(recipe: Any, names: list[str]) -> None:
    """ValueError when a soup is to blend a competitor that is not among `names`, or itself."""
    for name in getattr(recipe, "of", None) or []:
        if name not in names or name == recipe.name:
            others = [other for other in names if other != recipe.name]
            raise ValueError(f'competitors[{recipe.name}].of: no other competitor "{name}"{nearest(name, others)}')


def check_repeats(recipes: Sequence[Recipe]) -> None:
    """ValueError where what is said to be runs of one recipe is not, or where another seed would change nothing."""
    names, first = {recipe.name for recipe in recipes}, dict[str, Recipe]()
    for recipe in recipes:
        name = recipe.repeat_of
        if name is None:
            continue
        if not recipe.trains:
            raise ValueError(f"competitors[{name}].repeats: kind {recipe.kind} trains nothing that a seed could change")
        if name in names:
            raise ValueError(f'competitors: "{name}" names a recipe that is repeated, and a competitor of its own')
        other = first.setdefault(name, recipe)
        if recipe.model_copy(update={"name": other.name}) != other:
            raise ValueError(f"competitors[{recipe.name}].repeat_of: it is another recipe than {other.name}")


def folder_name(name: str) -> str:
    """A reference's name, which may hold any characters, as the name of a folder."""
    return "".join(c if c.isalnum() or c in "._-" else "-" for c in name)
