"""What a tournament's events become as figures."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cluster.on_ray.metrics import GAUGES
from competitors.contract import Allowance
from orchestrator.field.model_ref import ModelRef
from orchestrator.record.events import ChampionCrowned, EntryChanged, RoundBegan, TournamentEnded, VerdictReached
from orchestrator.tracking.metrics import Metrics


def changed(name: str, state: Any, tokens: int = 0) -> EntryChanged:
    return EntryChanged("l", 1, name, "sft", Allowance(steps=1), state, tokens=tokens)


def test_the_newest_of_each_entry_counts_and_a_round_begins_from_none():
    shown: dict[tuple[str, str, str], float] = {}

    def show(name: str, value: float, **labels: str) -> None:
        assert labels.keys() == {*GAUGES[name][1]}
        assert labels.pop("tournament") == "t"
        shown[name.removeprefix("tournament_"), labels["lineage"], labels.get("state", "")] = value

    metrics: Any = Metrics(SimpleNamespace(name="t"), None, show)  # type: ignore[arg-type]
    began: Any = [RoundBegan(SimpleNamespace(lineage="l", round=number), 5) for number in (1, 2)]  # type: ignore[arg-type]
    metrics.hear([began[0], changed("a", "training", 10), changed("a", "training", 30), changed("b", "queued")])
    entries = {state: count for (name, _, state), count in shown.items() if name == "entries" and count}
    assert entries == {"training": 1, "queued": 1}
    metrics.hear([changed("a", "scored", 40), changed("b", "forfeit", 2)])
    assert shown["entries", "l", "training"] == 0
    assert shown["entries", "l", "scored"] == shown["entries", "l", "forfeit"] == 1
    assert (shown["training_tokens", "l", ""], shown["round", "l", ""], shown["rounds", "l", ""]) == (42, 1, 5)
    verdict: Any = VerdictReached(SimpleNamespace(lineage="l", validation_loss=1.5))  # type: ignore[arg-type]
    crowned = ChampionCrowned("l", ModelRef("a", 1), {"loss": 1.25}, Path("champion"))
    metrics.hear([verdict, crowned, began[1], TournamentEnded("finished")])
    assert (shown["validation_loss", "l", ""], shown["test_loss", "l", ""]) == (1.5, 1.25)
    assert not any(count for (name, _, _), count in shown.items() if name == "entries")


def test_a_champion_without_a_test_loss_stops_nothing():
    said = list[str]()
    metrics: Any = Metrics(SimpleNamespace(name="t"), None, lambda name, value, **labels: said.append(name))  # type: ignore[arg-type]
    metrics.hear([ChampionCrowned("l", ModelRef("a", 1), {}, Path("x"))])
    assert "tournament_test_loss" not in said
