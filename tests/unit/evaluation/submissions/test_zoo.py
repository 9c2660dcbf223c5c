"""Bad submissions: each is rejected for its own reason, and a good one is scored after it as if nothing had been.

Their files are looked at in this process; that the process of its own says the same, test_apart.py shows.
"""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cluster.errors import Forfeit
from evaluation.evaluator import score_slice
from evaluation.submissions import inspection
from evaluation.submissions.examination import examine
from evaluation.submissions.inspection import Form, inspect
from tests.tiny import tiny_model
from tests.unit.evaluation.submissions.making import held_out, job, tiny_adapter
from tests.unit.evaluation.submissions.zoo import adapters, configs, files
from tests.unit.evaluation.submissions.zoo.spoiling import Animal, Places

NOWHERE = Places(Path(), Path())
ROWS = 3


class World:
    """A seed, a good full model, a good adapter, what they score, and another entry's model."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seed = tiny_model(folder / "seed")
        self.good: dict[Form, Path] = {
            "full": tiny_model(folder / "full", seed=1),
            "adapter": tiny_adapter(folder / "adapter", self.seed),
        }
        self.other = tiny_model(folder / "other", seed=2)
        held_out(folder / "held_out")
        self.losses = {form: self.loss(form) for form in self.good}

    def loss(self, form: Form) -> float:
        """What the good one of that form scores."""
        inspect(self.good[form], form, self.seed)
        if form == "full":
            return score_slice(job(self.folder, self.good[form], seed=self.seed, tokenizer=self.seed), ROWS)
        return score_slice(job(self.folder, self.seed, adapter=self.good[form]), ROWS)

    def animals(self) -> dict[tuple[Form, str], Animal]:
        places = Places(self.seed, self.other)
        of_full = files.animals(places) | {f"config: {name}": one for name, one in configs.animals(places).items()}
        found: dict[tuple[Form, str], Animal] = {("full", name): one for name, one in of_full.items()}
        return found | {("adapter", name): one for name, one in adapters.animals(places).items()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspection, "examine_apart", examine)
        yield World(tmp_path_factory.mktemp("zoo"))


def test_there_are_enough(world: World):
    animals = world.animals()
    assert len(animals) >= 80
    assert len({reason for _, reason in animals.values()}) > 80


@pytest.mark.parametrize("form", ["full", "adapter"])
@pytest.mark.parametrize("group", range(8))
def test_each_is_rejected_for_its_own_reason_and_leaves_nothing(world: World, tmp_path: Path, form: Form, group: int):
    names = [name for kind, name in world.animals() if kind == form]
    for number, name in list(enumerate(names))[group::8]:
        folder = tmp_path / str(number)
        shutil.copytree(world.good[form], folder)
        spoil, reason = world.animals()[form, name]
        spoil(folder)
        said = rejection(folder, form, world.seed)
        assert re.search(reason, said), f"{name}: {said}"
        assert said.isprintable(), name
        assert len(said) < 400, name
        if number % 4 == 0:  # a moment each
            assert world.loss("adapter") == world.losses["adapter"], name
        assert world.loss("full") == world.losses["full"], name


def rejection(folder: Path, form: Form, seed: Path, **settings: Any) -> str:
    """Why it may not be scored; empty where it may."""
    try:
        inspect(folder, form, seed, **settings)
    except Forfeit as reason:
        return str(reason)
    return ""
