"""Resources as a user writes them, and the shape that comes of them."""

import pytest
from pydantic import ValidationError

from cluster.resources import Resources, Shape


@pytest.mark.parametrize(("gpus", "has_gpus", "held"), [("auto", True, 1.0), ("auto", False, 0.0), (0.5, False, 0.5)])
def test_auto_is_one_gpu_where_there_are_any(gpus: float | str, has_gpus: bool, held: float):
    resources = Resources.model_validate({"gpus": gpus})
    assert resources.resolved(has_gpus).gpus == held
    assert Shape.of("trainer", resources, has_gpus).gpus == held


def test_devices_are_gpus_or_cpus_of_all_workers():
    assert Resources(workers=3, cpus=2, gpus=2).devices == 6
    assert Resources(workers=3, cpus=2, gpus=0).devices == 6
    assert Resources(workers=3, cpus=2, gpus=0.5).devices == 1.5


def test_a_size_names_only_what_is_asked_for():
    assert Shape("trainer", 2, 0).size == {"CPU": 2}
    assert Shape("evaluator", 0, 0).size == {}
    assert Shape("trainer", 1, 0.5, memory_gb=2).size == {"CPU": 1, "GPU": 0.5, "memory": 2**31}


def test_processes_are_shared_only_by_those_who_ask_alike():
    resources = Resources(workers=2, gpus=0)
    assert Shape.of("trainer", resources, True, gang=True) == Shape("trainer", 1, 0, None, 2, True)
    assert Shape.of("trainer", resources, True) != Shape.of("evaluator", resources, True)


@pytest.mark.parametrize("wrong", [{"workers": 0}, {"cpus": -1}, {"gpus": "all"}, {"memory_gb": 0}, {"gpu": 1}])
def test_what_makes_no_sense_is_refused(wrong: dict[str, object]):
    with pytest.raises(ValidationError):
        Resources.model_validate(wrong)


def test_a_size_is_what_one_worker_holds_in_rays_words():
    held = Resources(workers=3, cpus=2, gpus=0, memory_gb=0.1)
    assert held.size == {"CPU": 2, "memory": 107374182}  # whole bytes
    assert Shape.of("trainer", held, has_gpus=True).size == held.size
    assert Resources(gpus=1).resolved(has_gpus=False).size == {"CPU": 1, "GPU": 1}
