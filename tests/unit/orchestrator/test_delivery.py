"""Delivery: everybody hears everything in order, and one that fails or blocks stops nobody."""

import asyncio
import logging
import threading
from collections.abc import Sequence

import pytest

from competitors.contract import Allowance
from orchestrator import delivery as module
from orchestrator.delivery import Delivery
from orchestrator.record.events import EntryChanged, Noted, TournamentEnded, TournamentEvent


class Listener:
    name = "the listener"
    pause_seconds = 0.0

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.heard = failures, list[TournamentEvent]()

    def hear(self, events: Sequence[TournamentEvent]) -> None:
        if self.failures:
            self.failures -= 1
            raise ValueError("no connection")
        self.heard += events


def hold(events: list[TournamentEvent], *listeners: Listener, between: float | None = None) -> None:
    async def drive() -> None:
        hub = Delivery(listeners)
        async with hub.serving():
            for event in events:
                hub.tell(event)
                if between is not None:
                    await asyncio.sleep(between)
            hub.end("finished")

    asyncio.run(drive())


def changed(tokens: int, state: str = "training", competitor: str = "a") -> EntryChanged:
    return EntryChanged("l", 1, competitor, "sft", Allowance(steps=1), state, tokens=tokens)  # type: ignore[arg-type]


def test_everything_is_heard_in_order_and_the_end_comes_last():
    listener = Listener()
    events: list[TournamentEvent] = [Noted("one"), changed(1), Noted("two")]
    hold(events, listener)
    assert listener.heard == [*events, TournamentEnded("finished")]


def test_of_an_entrys_progress_only_the_newest_is_told_and_no_state_is_skipped():
    listener = Listener()
    hold([changed(1), changed(2), changed(7, competitor="b"), changed(3), changed(3, "delivered")], listener)
    told = [(e.competitor, e.tokens, e.state) for e in listener.heard if isinstance(e, EntryChanged)]
    assert told == [("a", 3, "training"), ("b", 7, "training"), ("a", 3, "delivered")]


def test_one_that_fails_is_logged_once_and_told_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    broken, other = Listener(failures=3), Listener()
    with caplog.at_level(logging.WARNING):
        hold([Noted("one"), Noted("two")], broken, other, between=0.1)
    assert broken.heard == other.heard
    assert len([r for r in caplog.records if "no connection" in r.message]) == 1


def test_one_that_never_works_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "RETRY_SECONDS", 0.01)
    broken, other = Listener(failures=1_000_000), Listener()
    hold([Noted("one")], broken, other)
    assert other.heard[-1] == TournamentEnded("finished")


def test_one_that_blocks_holds_up_nobody_else():
    release = threading.Event()
    heard = threading.Event()

    class Blocking(Listener):
        def hear(self, events: Sequence[TournamentEvent]) -> None:
            release.wait(30)
            super().hear(events)

    class Other(Listener):
        def hear(self, events: Sequence[TournamentEvent]) -> None:
            super().hear(events)
            heard.set()

    blocking, other = Blocking(), Other()

    async def drive() -> None:
        hub = Delivery([blocking, other])
        async with hub.serving():
            hub.tell(Noted("one"))
            assert await asyncio.to_thread(heard.wait, 30)
            assert blocking.heard == []
            release.set()
            hub.end("stopped")

    asyncio.run(drive())
    assert blocking.heard == [Noted("one"), TournamentEnded("stopped")]


def test_one_that_hangs_does_not_hold_up_the_end(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)
    release = threading.Event()

    class Hanging(Listener):
        def hear(self, events: Sequence[TournamentEvent]) -> None:
            release.wait(60)
            super().hear(events)

    hanging = Hanging()
    hold([Noted("one")], hanging)
    assert hanging.heard == []
    assert "did not take in the end of the tournament in time" in caplog.text
    release.set()


def test_of_the_end_they_are_told_in_their_order():
    """What one draws at the end, the next one can send."""
    order: list[str] = []

    class Slow(Listener):
        def hear(self, events: Sequence[TournamentEvent]) -> None:
            threading.Event().wait(0.2)
            order.append("slow")

    class Quick(Listener):
        def hear(self, events: Sequence[TournamentEvent]) -> None:
            order.append("quick")

    hold([], Slow(), Quick())
    assert order == ["slow", "quick"]
