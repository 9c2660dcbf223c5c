"""What devices cost."""

from dataclasses import replace

import pytest

from cluster.prices import ACCELERATORS, cost, hourly, price_of
from cluster.resources import ACCELERATOR_LABEL, Shape

PRICES = {"H100": 4.0, "L4": 1.0, "CPU": 0.1}
PAIR = Shape("trainer", 8, 2, workers=2, gang=True)


def test_a_kind_without_a_price_costs_what_others_do_and_never_too_little():
    assert [price_of(kind, PRICES) for kind in ("H100", "L4", "T4", "CPU")] == [4.0, 1.0, 4.0, 0.1]
    assert [price_of(kind, {"H100": 4.0, "GPU": 2.0}) for kind in ("H100", "T4", "GPU", "CPU")] == [4.0, 2.0, 2.0, 0.0]
    assert cost({"L4": 7200, "GPU": 1800, "CPU": 36_000}, PRICES) == pytest.approx(2 * 1 + 0.5 * 4 + 10 * 0.1)


def test_an_hour_of_a_shape_costs_what_all_its_workers_hold_at_the_dearest():
    assert hourly(PAIR, PRICES) == 4 * 4.0
    assert hourly(replace(PAIR, labels=((ACCELERATOR_LABEL, "L4"),)), PRICES) == 4 * 1.0
    assert hourly(replace(PAIR, labels=((ACCELERATOR_LABEL, "in(L4,T4)"),)), PRICES) == 4 * 4.0
    assert hourly(Shape("trainer", 8, 0), PRICES) == 8 * 0.1
    assert hourly(Shape("evaluator", 0, 0), PRICES) == 0


def test_what_a_call_holds_is_known_by_kind_as_far_as_its_nodes_say():
    assert PAIR.held() == {"GPU": 4}
    assert PAIR.held(["H100", "L4"]) == {"H100": 2, "L4": 2}
    assert PAIR.held(["H100", ""]) == {"H100": 2, "GPU": 2}
    assert Shape("evaluator", 0, 0.5).held(["H100"]) == {"H100": 0.5}
    assert Shape("trainer", 2, 0).held(["H100"]) == {"CPU": 2}


def test_the_kinds_are_rays_own():
    from ray.util.accelerators import accelerators

    assert {*ACCELERATORS} <= {value for name, value in vars(accelerators).items() if name.isupper()}
