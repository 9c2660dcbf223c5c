"""Who starts next and where: decided on plain numbers."""

import heapq
import random

import pytest

from cluster.placement import (
    MAX_OVERTAKEN,
    Holder,
    Nodes,
    Ticket,
    any_member_selector,
    cluster_room,
    count_overtaking,
    in_others_use,
    member_selectors,
    next_served,
    place,
    placed_on,
    refusal,
    stand_on,
    taken_from,
    to_end,
)
from cluster.resources import Shape

ONE, TWO = Shape("trainer", 1, 1), Shape("trainer", 1, 2)
EVALUATOR, WEIGHTLESS = Shape("evaluator", 0, 1), Shape("evaluator", 0, 0)


def gang(workers: int, gpus: float = 1) -> Shape:
    return Shape("trainer", 1, gpus, workers=workers, gang=True)


def cluster(**gpus: int) -> Nodes:
    """Nodes with so many GPUs and twice as many CPUs."""
    return {name: {"CPU": 2.0 * count, "GPU": float(count), "memory": 2.0**35} for name, count in gpus.items()}


def tickets(*shapes: Shape, overtaken: int = 0) -> list[Ticket]:
    return [Ticket(1, number, shape, overtaken) for number, shape in enumerate(shapes)]


@pytest.mark.parametrize(
    ("shape", "totals", "room"),
    [
        (ONE, cluster(a=4, b=3), 7),
        (TWO, cluster(a=4, b=3), 3),  # a worker stands on one node
        (Shape("trainer", 1, 0), cluster(a=4, b=1), 10),
        (Shape("trainer", 1, 1, memory_gb=20), cluster(a=4), 1),
        (WEIGHTLESS, cluster(a=4), 1),
        (ONE, {}, 0),
    ],
)
def test_the_room_of_a_cluster_is_that_of_its_nodes(shape: Shape, totals: Nodes, room: int):
    assert cluster_room(shape.size, totals) == room


@pytest.mark.parametrize(
    ("shape", "free", "nodes"),
    [
        (TWO, cluster(a=1, b=1), None),  # two halves are no whole
        (TWO, cluster(a=1, b=2), ["b"]),
        (ONE, cluster(a=4, b=2), ["b"]),  # the fuller one: a stays whole
        (gang(4), cluster(a=2, b=4, c=2), ["b"] * 4),  # one node rather than two
        (gang(4), cluster(a=2, b=3, c=1), ["b", "b", "b", "c"]),
        (gang(4), cluster(a=2, b=1), None),  # all or nothing
        (gang(2, gpus=2), cluster(a=3, b=3), ["a", "b"]),
        (Shape("trainer", 1, 0), cluster(a=1, b=0) | {"c": {"CPU": 8.0}}, ["c"]),  # no GPU is kept from others
        (Shape("trainer", 1, 0.5), {"a": {"CPU": 4.0, "GPU": 0.5}}, ["a"]),
        (Shape("trainer", 1, 1, memory_gb=64), cluster(a=1), None),
        (WEIGHTLESS, cluster(a=0), []),  # Ray chooses
        (ONE, {}, None),
    ],
)
def test_place(shape: Shape, free: Nodes, nodes: list[str] | None):
    assert place(shape.size, shape.workers, free) == nodes


def test_tenths_of_a_gpu_add_up():
    tenth = Shape("trainer", 0, 0.1)
    busy = [Holder(tenth, ["a"]) for _ in range(9)]
    assert next_served(tickets(tenth), cluster(a=1), busy, []) is not None
    assert next_served(tickets(tenth), cluster(a=1), [*busy, Holder(tenth, ["a"])], []) is None


def test_what_can_never_be_placed_is_refused_with_what_it_asks_and_what_there_is():
    totals = cluster(a=2, b=2) | {"head": {"CPU": 0.0}}
    assert refusal(gang(4), totals) is None
    assert refusal(gang(5), totals) == (
        "asks for 5 workers of 1 CPU, 1 GPU each, which this cluster can never hold:"
        " it has 2 nodes of 4 CPU, 2 GPU; 1 node of 0 CPU, 0 GPU"
    )
    assert refusal(gang(2, gpus=1.5), totals) is None
    assert refusal(gang(3, gpus=1.5), totals) is not None  # 4 GPUs hold 2 of them
    assert "64 GB memory" in str(refusal(Shape("trainer", 1, 0, memory_gb=64), totals))


def test_a_warm_process_is_taken_before_a_place_without_one():
    waiting = tickets(ONE)
    assert next_served(waiting, cluster(a=1, b=4), [], [Holder(ONE, ["b"])]) == (waiting[0], ["b"])
    # and an empty place before one where an idle process of another shape had to end
    assert next_served(waiting, cluster(a=1, b=4), [], [Holder(EVALUATOR, ["a"])]) == (waiting[0], ["b"])


def test_only_as_many_idle_processes_end_as_are_in_the_way_the_longest_idle_first():
    totals = cluster(a=2, b=2)
    idle = [Holder(EVALUATOR, ["b"]), Holder(ONE, ["a"]), Holder(ONE, ["a"]), Holder(WEIGHTLESS)]
    assert to_end(EVALUATOR, ["a"], totals, [], idle) == [idle[1]]
    assert to_end(gang(3), ["a", "a", "b"], totals, [], idle) == [idle[1], idle[2]]
    assert to_end(gang(4), ["a", "a", "b", "b"], totals, [], idle) == idle[:3]
    assert to_end(ONE, ["b"], totals, [], idle) == []


def test_small_ones_overtake_a_gang_that_does_not_fit_so_often_and_no_more():
    totals, busy = cluster(a=2, b=2), [Holder(ONE, ["a"])]
    first, *later = tickets(gang(4), *[ONE] * (MAX_OVERTAKEN + 2))
    for ticket in later[:MAX_OVERTAKEN]:
        waiting = [first, *later]
        assert next_served(waiting, totals, busy, []) == (ticket, ["a"] if ticket is later[0] else ["b"])
        later.remove(ticket)
        count_overtaking(ticket, [first, *later])
    assert first.overtaken == MAX_OVERTAKEN
    assert next_served([first, *later], totals, busy, []) is None
    assert next_served([first, *later], totals, busy, [Holder(ONE, ["b"])]) is None  # nor in a warm process
    assert next_served([first, *later], totals, [], []) == (first, ["a", "a", "b", "b"])


def test_room_that_is_kept_for_a_gang_is_only_where_it_will_stand():
    totals = cluster(small=1, a=2, b=2)
    waiting = tickets(gang(2, gpus=2), ONE, ONE, overtaken=MAX_OVERTAKEN)
    busy = [Holder(ONE, ["a"])]
    assert next_served(waiting, totals, busy, []) == (waiting[1], ["small"])  # too small for the gang
    busy.append(Holder(ONE, ["small"]))
    assert next_served([waiting[0], waiting[2]], totals, busy, []) is None
    bigger = totals | cluster(c=2)
    busy += [Holder(ONE, ["c"])]
    # a gang of four needs b, which is empty, and one of a and c: on the other small ones go on
    assert next_served([waiting[0], waiting[2]], bigger, busy, []) == (waiting[2], ["c"])


def test_a_more_urgent_ticket_does_not_wait_for_a_gang():
    totals, busy = cluster(a=2, b=2), [Holder(ONE, ["a"])]
    scoring = Ticket(0, 99, EVALUATOR)
    waiting = [*tickets(gang(4), ONE, overtaken=MAX_OVERTAKEN), scoring]
    assert next_served(waiting, totals, busy, []) == (scoring, ["a"])
    count_overtaking(scoring, waiting)
    assert [ticket.overtaken for ticket in waiting[:2]] == [MAX_OVERTAKEN] * 2


def test_what_lost_its_node_holds_nobody_up():
    waiting = tickets(gang(4), ONE, overtaken=MAX_OVERTAKEN)
    assert next_served(waiting, cluster(a=2), [], []) == (waiting[1], ["a"])


def test_a_process_on_a_node_that_is_gone_is_not_lent():
    assert next_served(tickets(ONE), cluster(a=1), [], [Holder(ONE, ["gone"])]) is not None
    assert next_served(tickets(ONE), cluster(a=1), [Holder(ONE, ["a"])], [Holder(ONE, ["gone"])]) is None


def test_other_peoples_work_is_worked_round():
    totals = cluster(a=2, b=2)
    available = {"a": totals["a"] | {"GPU": 0.0}, "b": totals["b"] | {"GPU": 1.0}}
    ours = [Holder(ONE, ["a"])]
    (others,) = in_others_use(totals, available, [*ours, Holder(ONE, ["b"])])
    assert (others.shape.gpus, others.nodes) == (1, ["a"])
    waiting = tickets(ONE)
    assert next_served(waiting, totals, [*ours, others], []) == (waiting[0], ["b"])
    assert in_others_use(totals, totals, [Holder(gang(4), ["a", "a", "b", "b"])]) == []  # not started yet
    assert in_others_use(totals, {}, []) == []  # a node that Ray has not described yet


@pytest.mark.parametrize("seed", range(8))
def test_nobody_waits_for_ever_however_full_the_queue(seed: int):
    rng, totals = random.Random(seed), cluster(a=2, b=4, c=1, d=4)
    shapes = [ONE, ONE, ONE, TWO, gang(2, gpus=2), gang(6), gang(10), Shape("trainer", 2, 0)]
    waiting: list[Ticket] = []
    running: list[tuple[float, int, Holder]] = []  # a heap by the time at which each ends
    overtaken, now = list[int](), 0.0
    for number in range(300):
        waiting.append(Ticket(1, number, rng.choice(shapes)))
        while len(waiting) == 12:
            held = [holder for _, _, holder in running]
            if (found := next_served(waiting, totals, held, [])) is None:
                now, _, _ = heapq.heappop(running)
                continue
            ticket, nodes = found
            waiting.remove(ticket)
            count_overtaking(ticket, waiting)
            overtaken.append(ticket.overtaken)
            heapq.heappush(running, (now + rng.uniform(0.1, 2.0), ticket.number, Holder(ticket.shape, nodes)))
            left = taken_from(totals, [holder for _, _, holder in running])
            assert all(amount > -1e-6 for amounts in left.values() for amount in amounts.values())
    assert max(overtaken) > MAX_OVERTAKEN  # where it takes nothing away
    assert max(overtaken) <= 12  # without a bound over 50


def test_a_gangs_process_knows_where_its_members_stand():
    assert (placed_on(), member_selectors(), any_member_selector()) == ([], [], {})
    try:
        stand_on(["a", "a", "b"])
        assert placed_on() == ["a", "a", "b"]
        assert member_selectors() == [{"ray.io/node-id": node} for node in "aab"]
        assert any_member_selector() == {"ray.io/node-id": "in(a,b)"}
    finally:
        stand_on([])
