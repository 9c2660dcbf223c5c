"""The tree of runs that follows from a snapshot."""

import os
from pathlib import Path
from typing import Any

import pytest

from orchestrator.tracking import tree as trees
from orchestrator.tracking.tree import Part, View, parts
from tests.fabricate import REPEATED, repeated_loss
from tests.tracked import make, snapshot_of

REASON = "weights *are* missing"


def tree(root: Path, **more: Any) -> dict[str, tuple[Part, View]]:
    _, run = make(root / "demo", **more)
    return {part.key: (part, part.build()) for part in parts(snapshot_of(run))}


def test_parents_come_first(tmp_path: Path) -> None:
    found = tree(tmp_path, lineages=("llama", "sn9"))
    keys = list(found)
    assert len(keys) == 1 + 2 + 2 * (1 + 2 * 3)
    for key, (part, _) in found.items():
        assert part.parent is None or keys.index(part.parent) < keys.index(key)


def test_every_state_of_an_entry_is_a_status(tmp_path: Path) -> None:
    found = tree(
        tmp_path,
        settled={"llama": 1},
        training=True,
        forfeits={("llama", 1, "full"): "ran out of memory"},
        rejections={("llama", 1, "lora-r16"): REASON},
    )
    views = {key: view for key, (_, view) in found.items()}
    said = {
        key: (view.status, view.tags["status"], view.tags["reason"])
        for key, view in views.items()
        if "status" in view.tags
    }
    assert said == {
        "llama/1/full": ("FAILED", "forfeit", "ran out of memory"),
        "llama/1/lora-r16": ("FAILED", "rejected", REASON),
        "llama/2/full": ("open", "training", ""),
        "llama/2/lora-r16": ("open", "training", ""),
    }
    assert views["llama/1/lora-r16"].note.startswith("Rejected: weights \\*are\\* missing.")
    assert views["llama/1/lora-r16"].tags["outcome"] == "out of the round"
    assert views["llama/2"].status == views["llama"].status == "open"
    assert views["llama/1"].tags["winner"] == "none"
    assert views["reference:instruct"].status == "open"


def test_runs_of_a_recipe_have_its_tag_and_the_round_says_how_recipes_compare(tmp_path: Path) -> None:
    found = tree(tmp_path, rounds=1, competitors=REPEATED, loss=repeated_loss)
    views = {key: view for key, (_, view) in found.items()}
    runs = {key: view.tags["repeat_of"] for key, view in views.items() if "repeat_of" in view.tags}
    assert runs == {f"llama/1/{one['name']}": one["repeat_of"] for one in REPEATED}
    assert "hot is better than wild" in views["llama/1"].note


def test_a_lineage_with_nothing_on_record_has_no_run(tmp_path: Path) -> None:
    assert "sn9" not in tree(tmp_path, lineages=("llama", "sn9"), settled={"llama": 1})


def test_times_are_those_of_the_records(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", rounds=1)
    files = {
        run.config_file: 1,
        run.round("llama", 0) / "scorecard.json": 2,
        run.round("llama", 1) / "roster.json": 3,
        run.entry("llama", 1, "full") / "brief.json": 4,
        run.entry("llama", 1, "full") / "submission.json": 5,
        run.entry("llama", 1, "full") / "inspection.json": 6,
        run.entry("llama", 1, "full") / "scorecard.json": 7,
        run.round("llama", 1) / "verdict.json": 8,
        run.reference("instruct") / "scorecard.json": 9,
    }
    for path, seconds in files.items():
        os.utime(path, (seconds, seconds))
    views = {part.key: part.build() for part in parts(snapshot_of(run))}
    began_ended = {key: (view.began_ms, view.ended_ms) for key, view in views.items()}
    assert began_ended[""] == (1000, None)
    assert began_ended["llama"] == (1000, 8000)
    assert began_ended["llama/1"] == (3000, 8000)
    assert began_ended["llama/1/full"] == (4000, 7000)
    assert began_ended["reference:instruct"] == (1000, 9000)
    assert {point.time_ms for point in views["llama"].points if point.step == 0} == {2000}
    assert {point.time_ms for point in views["llama/1/full"].points} == {7000}


def test_what_a_part_follows_from_changes_with_the_record_alone(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", settled={"llama": 1}, training=True)
    before = {part.key: part for part in parts(snapshot_of(run))}
    again = {part.key: part for part in parts(snapshot_of(run))}
    assert [key for key in before if before[key].sources[1:] != again[key].sources[1:]] == []
    assert before["llama/1/full"].sources == again["llama/1/full"].sources
    (run.entry("llama", 2, "full") / "brief.json").touch()
    later = {part.key: part for part in parts(snapshot_of(run))}
    changed = {key for key in before if key and before[key].sources != later[key].sources}
    assert changed == {"llama", "llama/2/full"}
    assert before["llama/2/full"].files == (run.entry("llama", 2, "full") / "progress.jsonl",)
    assert before["llama/1/full"].files == ()


def test_a_champion_is_registered_once_its_round_is_settled(tmp_path: Path) -> None:
    _, run = make(tmp_path / "demo", rounds=1, references=[])
    crowned = [part.build().model for part in parts(snapshot_of(run)) if part.level == "competitor"]
    models = [model for model in crowned if model is not None]
    assert len(models) == 1
    assert models[0].name == "demo-llama"
    assert models[0].path == run.round("llama", 1) / "champion"
    assert models[0].tags["weights"] == models[0].path.as_uri()
    (run.round("llama", 1) / "verdict.json").unlink()
    assert [part.build().model for part in parts(snapshot_of(run)) if part.level == "competitor"] == [None, None]


def test_very_many_competitors_settings_stand_on_their_own_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = tree(tmp_path / "few")[""][1].params
    assert any(name.startswith("competitors") for name in every)
    monkeypatch.setattr(trees, "MOST_SETTINGS", 100)
    some = tree(tmp_path / "many")[""][1].params
    assert some == {name: value for name, value in every.items() if not name.startswith("competitors")}
