"""Who may start next, and what can never be held: decided on plain numbers."""

import heapq
import random
from dataclasses import replace

import pytest

from cluster.placement import (
    MAX_OVERTAKEN,
    Node,
    Nodes,
    Ticket,
    cluster_room,
    count_overtaking,
    may_start,
    refusal,
    selects,
)
from cluster.resources import Shape

ONE, TWO = Shape("trainer", 1, 1), Shape("trainer", 1, 2)
EVALUATOR, WEIGHTLESS = Shape("evaluator", 0, 1), Shape("evaluator", 0, 0)


def gang(workers: int, gpus: float = 1) -> Shape:
    return Shape("trainer", 1, gpus, workers=workers, gang=True)


def cluster(**gpus: int) -> Nodes:
    """Nodes with so many GPUs and twice as many CPUs."""
    return {name: Node({"CPU": 2.0 * count, "GPU": float(count), "memory": 2.0**35}) for name, count in gpus.items()}


def tickets(*shapes: Shape, priority: int = 1) -> list[Ticket]:
    return [Ticket(priority, number, shape) for number, shape in enumerate(shapes)]


def test_memory_that_a_type_of_nodes_does_not_say_is_no_reason_to_refuse():
    """As in a config for `ray up`; a living node says what it has."""
    wants = Shape("trainer", 2, 0, memory_gb=30)
    assert Node({"CPU": 8.0}).room(wants) == 4
    assert Node({"CPU": 8.0, "memory": 1.0}).room(wants) == 0
    assert Node({"CPU": 8.0}).room(Shape("trainer", 0, 0, memory_gb=30)) == 1
    said = refusal(Shape("trainer", 16, 0, memory_gb=30), {"a": Node({"CPU": 8.0})})
    assert said is not None
    assert said.endswith("it has 1 node of 8 CPU, unknown memory")


@pytest.mark.parametrize(
    ("shape", "totals", "room"),
    [
        (ONE, cluster(a=4, b=3), 7),
        (TWO, cluster(a=4, b=3), 3),  # a worker stands on one node
        (Shape("trainer", 1, 0), cluster(a=4, b=1), 10),
        (Shape("trainer", 1, 1, memory_gb=20), cluster(a=4), 1),
        (Shape("trainer", 0, 0.1), cluster(a=1), 10),  # tenths of a GPU add up
        (WEIGHTLESS, cluster(a=4), 1),
        (ONE, {}, 0),
    ],
)
def test_the_room_of_a_cluster_is_that_of_its_nodes(shape: Shape, totals: Nodes, room: int):
    assert cluster_room(shape, totals) == room


def test_what_can_never_be_placed_is_refused_with_what_it_asks_and_what_there_is():
    totals = cluster(a=2, b=2) | {"head": Node({"CPU": 0.0})}
    assert refusal(gang(4), totals) is None
    assert refusal(gang(5), totals) == (
        "asks for 5 workers of 1 CPU, 1 GPU each, which this cluster can never hold:"
        " it has 2 nodes of 4 CPU, 2 GPU; 1 node of 0 CPU, 0 GPU"
    )
    assert refusal(gang(2, gpus=1.5), totals) is None
    assert refusal(gang(3, gpus=1.5), totals) is not None  # 4 GPUs hold 2 of them
    assert "64 GB memory" in str(refusal(Shape("trainer", 1, 0, memory_gb=64), totals))
    assert refusal(WEIGHTLESS, {}) is None


@pytest.mark.parametrize(
    ("selector", "values"),
    [("a", ["a"]), ("!a", ["b", None]), ("in(a,b)", ["a", "b"]), ("!in(a,b)", [None])],
)
def test_labels_are_selected_as_ray_does(selector: str, values: list[str | None]):
    assert [value for value in ("a", "b", None) if selects(selector, value)] == values


def test_only_nodes_with_the_labels_hold_what_asks_for_them():
    totals = {name: Node({"CPU": 8.0}, {"kind": name}) for name in ("H100", "L4")} | {"head": Node({"CPU": 8.0})}
    picky = Shape("trainer", 2, 0, labels=(("kind", "H100"),))
    assert cluster_room(picky, totals) == 4
    assert refusal(picky, totals) is None
    too_many = replace(picky, workers=5, gang=True)
    assert refusal(too_many, totals) == (
        "asks for 5 workers of 2 CPU each on nodes with kind=H100, which this cluster can never hold: "
        "it has 1 node of 8 CPU (kind=H100); 1 node of 8 CPU (kind=L4); 1 node of 8 CPU (kind=none)"
    )


def test_whoever_fits_may_start_in_any_order_until_one_was_overtaken_too_often():
    first, *later = waiting = tickets(gang(4), ONE, ONE, TWO)
    for _ in range(MAX_OVERTAKEN):
        assert may_start(waiting) == waiting
        count_overtaking(later[0], waiting)
    assert first.overtaken == MAX_OVERTAKEN
    assert later[1].overtaken == 0  # what came after was not overtaken
    assert may_start(waiting) == [first]
    assert may_start(later) == later


def test_nobody_who_is_less_urgent_asks_while_a_more_urgent_one_waits():
    waiting = [*tickets(gang(4), ONE), Ticket(0, 99, EVALUATOR)]
    assert may_start(waiting) == [waiting[2]]
    count_overtaking(waiting[2], waiting)
    assert [ticket.overtaken for ticket in waiting] == [0, 0, 0]


def test_for_whom_the_cluster_became_too_small_holds_nobody_up():
    waiting = tickets(gang(4), ONE)
    waiting[0].overtaken, waiting[0].homeless_since = MAX_OVERTAKEN, 7.0
    assert may_start(waiting) == waiting[::-1]
    assert may_start([]) == []


@pytest.mark.parametrize("seed", range(8))
def test_nobody_waits_for_ever_however_full_the_queue(seed: int):
    """Ray is played by whoever fits, drawn blindly among those that may start, on a cluster of 11 GPUs."""
    rng, free = random.Random(seed), 11.0
    shapes = [ONE, ONE, ONE, TWO, gang(2, gpus=2), gang(6), gang(10)]
    waiting: list[Ticket] = []
    running: list[tuple[float, int, float]] = []  # a heap by the time at which each ends
    overtaken, now = list[int](), 0.0
    for number in range(300):
        waiting.append(Ticket(1, number, rng.choice(shapes)))
        while len(waiting) == 12:
            fits = [ticket for ticket in may_start(waiting) if ticket.shape.gpus * ticket.shape.workers <= free]
            if not fits:
                now, _, back = heapq.heappop(running)
                free += back
                continue
            ticket = rng.choice(fits)
            waiting.remove(ticket)
            count_overtaking(ticket, waiting)
            overtaken.append(ticket.overtaken)
            taken = ticket.shape.gpus * ticket.shape.workers
            free -= taken
            heapq.heappush(running, (now + rng.uniform(0.1, 2.0), ticket.number, taken))
    assert max(overtaken) == MAX_OVERTAKEN
