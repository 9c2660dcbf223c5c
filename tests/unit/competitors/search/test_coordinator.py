"""A search's books over made-up trials: what is charged, what is best, what is submitted."""

from typing import Any

import pytest

from cluster.errors import ClusterTrouble, Forfeit
from competitors.contract import Allowance, Brief
from competitors.events import read_events, reporter
from competitors.search.coordinator import LONGER, Search, covered
from competitors.search.record import SearchRecord, Trial
from tests.unit.competitors.search.making import recipe


@pytest.fixture
def brief(brief: Brief) -> Brief:
    return brief.model_copy(update={"budget": Allowance(steps=40)})


class Trials:
    """A search whose trials are made up: they lie on the disk as a trial would leave them."""

    def __init__(self, brief: Brief) -> None:
        self.search = Search(brief, recipe(trials=4, slice_rows=10), reporter(brief.progress_file))

    def add(self, name: str, rate: float, part: Allowance | None = None) -> Trial:
        config = {"learning_rate": rate}
        folder = self.search.folder / name
        folder.mkdir()
        self.search.trials[name] = Trial(folder, config, config, part or self.search.part)
        return self.search.trials[name]

    def report(self, name: str, event: str, **values: Any) -> None:
        reporter(self.search.folder / name / "progress.jsonl")({"event": event, **values})
        self.search.poll(now=True)

    def mark(self, name: str, steps: int, loss: float, spent: float = 1.0) -> None:
        """At a mark, with a saved model of which only the folder is there."""
        saved = self.search.folder / name / f"checkpoint-{steps}"
        saved.mkdir()
        (saved / "which").write_text(f"{name} {steps}")
        self.report(name, "mark", step=steps, tokens=10 * steps, fraction=spent, loss=loss, folder=saved.name)


def kept(brief: Brief) -> list[str]:
    return [path.read_text() for path in brief.output_dir.glob("checkpoint-*/which")]


def test_the_best_model_so_far_is_what_counts_when_the_entry_is_ended(brief: Brief):
    trials = Trials(brief)
    assert trials.search.part == Allowance(steps=5)
    for name, rate in (("a", 0.1), ("b", 0.2)):
        trials.add(name, rate)
        trials.report(name, "started", tokens=0, step=0)
    trials.mark("a", 1, 3.0, 0.2)
    assert kept(brief) == ["a 1"]
    trials.mark("b", 1, 2.5, 0.2)
    trials.mark("a", 5, 2.7)
    assert kept(brief) == ["b 1"]
    assert trials.search.best_file.read_text() == "2.5"
    trials.report("b", "step", step=3, tokens=30)
    events = read_events(brief.progress_file)
    assert [event.event for event in events].count("started") == 1
    assert (events[-1].step, events[-1].tokens, events[-1].loss) == (8, 80, 2.5)

    # b was cut off between two reports: it may have spent all of its part. What is left trains b's rate.
    assert trials.search.longer() == {"learning_rate": 0.2, LONGER: {"tokens": None, "seconds": None, "steps": 30}}
    assert "best of 2 trials: learning_rate 0.2 (slice loss 2.5000 nats)" in str(
        read_events(brief.progress_file)[-1].text
    )


@pytest.mark.parametrize(("loss", "reason"), [(2.0, ""), (2.9, ""), (None, "its process died")])
def test_the_longer_training_is_submitted_where_it_is_better(brief: Brief, loss: float | None, reason: str):
    trials = Trials(brief)
    trials.add("a", 0.1)
    trials.report("a", "started", tokens=0, step=0)
    trials.mark("a", 5, 2.5)
    config = trials.search.longer()
    assert config is not None
    longer = trials.add(LONGER, 0.1, Allowance(**config[LONGER]))
    longer.reason = reason
    if loss is not None:
        for folder in ("submission", "continuation"):
            (longer.folder / folder).mkdir()
            (longer.folder / folder / "which").write_text("longer")
        trials.report(LONGER, "mark", step=35, tokens=350, fraction=1.0, loss=loss)
    assert trials.search.submit() == "best of 1 trials: learning_rate 0.1"
    record = SearchRecord.read(brief.output_dir.parent / "search.json")
    better = loss == 2.0
    assert record.submitted == ("longer" if better else "trial")
    assert (brief.output_dir / "which").exists() == better == brief.continuation_dir.exists()
    assert kept(brief) == ([] if better else ["a 5"])
    notes = [str(event.text) for event in read_events(brief.progress_file) if event.event == "note"]
    if not better:
        assert notes[-1].endswith(reason or "its slice loss was 2.9000")
    assert record.longer is not None
    assert record.longer.loss == loss
    last = read_events(brief.progress_file)[-1]
    assert (last.event, last.step) == ("ended", 5 if loss is None else 40)


def test_a_search_whose_trials_all_fail_forfeits_with_the_first_reason(brief: Brief):
    trials = Trials(brief)
    trials.add("a", 0.1)
    trials.search.failures = ["ran out of memory", "raised ValueError: other"]
    assert trials.search.longer() is None
    with pytest.raises(Forfeit, match="all 1 trials failed, the first: ran out of memory"):
        trials.search.submit()


def test_a_search_whose_trials_fail_with_the_machine_is_no_forfeit(brief: Brief):
    trials = Trials(brief)
    trials.add("a", 0.1)
    trials.search.fail("a", "raised OSError: [Errno 28] No space left on device", "No space left on device: /scratch")
    trials.search.fail("never began", "raised ValueError: other", None)
    assert trials.search.trials["a"].reason == "raised OSError: [Errno 28] No space left on device"
    with pytest.raises(ClusterTrouble, match=r"^a: No space left on device: /scratch$"):
        trials.search.submit()


def test_what_is_charged_is_the_time_in_which_a_trial_trained():
    assert covered([]) == 0
    assert covered([(5, 7), (0, 2), (1, 3)]) == 5
    assert covered([(0, 10), (2, 3)]) == 10
