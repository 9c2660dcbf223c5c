"""What a coordinator knows of a trial by its reports."""

from pathlib import Path

from competitors.contract import Allowance
from competitors.events import reporter
from competitors.search.record import Trial, TrialRecord


def test_a_trial_follows_its_reports_each_once(tmp_path: Path):
    trial = Trial(tmp_path, {}, {"learning_rate": 0.1}, Allowance(steps=10))
    assert trial.events() == []
    report = reporter(tmp_path / "progress.jsonl")
    report({"event": "started", "tokens": 0, "step": 0})
    report({"event": "step", "tokens": 40, "step": 4, "memory_megabytes": 300})
    for event in trial.events():
        trial.take(event)
    assert trial.began is not None
    assert trial.heard >= trial.began
    assert (trial.tokens, trial.steps, trial.memory, trial.at_mark) == (40, 4, {"memory_megabytes": 300}, False)
    report({"event": "mark", "tokens": 50, "step": 5, "fraction": 0.5, "loss": 2.5})
    report({"event": "mark", "step": 10, "fraction": 1.0})  # its loss was no number
    marks = trial.events()
    assert trial.events() == []
    trial.take(marks[0])
    assert trial.record == TrialRecord(values={"learning_rate": 0.1}, loss=2.5, spent=0.5, tokens=50, steps=5)
    trial.take(marks[1])
    assert (trial.loss, trial.spent, trial.tokens, trial.at_mark) == (None, 1.0, 50, True)
