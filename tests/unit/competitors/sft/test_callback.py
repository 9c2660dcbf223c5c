"""What happens between the steps: checkpoints, races, being stopped."""

from typing import Any

import pytest

from cluster.errors import Forfeit
from competitors.contract import Allowance, Brief
from competitors.events import read_events, reporter
from competitors.output import model_form
from competitors.sft.training import train
from tests.unit.competitors.making import run, sft_recipe


def test_checkpoints_are_saved_on_the_way(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    """A competitor ended from outside after 6 of 10 steps leaves the checkpoint of step 6 or before."""
    from competitors.sft.callback import BudgetCallback

    def stop(self: Any, step: int) -> None:
        if step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(BudgetCallback, "_report_step", stop)
    with pytest.raises(KeyboardInterrupt):
        run(brief)
    saved = sorted(int(p.name.split("-")[1]) for p in brief.output_dir.glob("checkpoint-*"))
    assert saved == [2, 4, 6]
    assert model_form(brief.output_dir / "checkpoint-6") == "full"


def test_a_race_gets_a_checkpoint_at_each_fraction_once_it_is_whole(brief: Brief, monkeypatch: pytest.MonkeyPatch):
    from competitors.output import settle_output

    whole: list[str | None] = []
    events: list[dict[str, Any]] = []

    def report(event: dict[str, Any]) -> None:
        events.append(event)
        if event["event"] == "checkpoint":
            whole.append(model_form(brief.output_dir / event["folder"]))

    train(brief.model_copy(update={"race_at": (0.25, 0.5)}), sft_recipe(checkpoints=0), report)
    races = [event for event in events if event["event"] == "checkpoint"]
    assert [(r["fraction"], r["step"], r["folder"]) for r in races] == [
        (0.25, 3, "checkpoint-3"),
        (0.5, 5, "checkpoint-5"),
    ]
    assert whole == ["full", "full"]
    assert settle_output(brief.output_dir) == "full"
    assert not list(brief.output_dir.glob("checkpoint-*"))


def test_a_stop_file_ends_an_entry_soon_and_without_a_submission(brief: Brief):
    long = brief.model_copy(update={"budget": Allowance(steps=2000)})
    reports = reporter(brief.progress_file)

    def report(event: dict[str, Any]) -> None:
        reports(event)
        if event["event"] == "step":
            brief.stop_file.write_text("is among the worst half at 25 % of its budget\n")

    with pytest.raises(Forfeit, match=r"^is among the worst half at 25 % of its budget$"):
        train(long, sft_recipe(checkpoints=0), report)
    assert model_form(brief.output_dir) is None
    assert not brief.continuation_dir.exists()
    assert read_events(brief.progress_file)[-1].step < 1000
