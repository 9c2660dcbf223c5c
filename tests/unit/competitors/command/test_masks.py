"""What of a shown folder is covered, and which folders cannot be shown at all."""

import os
from pathlib import Path

import pytest

from competitors.command.masks import masks, refusal


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A project with data, two names for one file, an earlier run and a link to it all."""
    for name in ("p/prog/train.py", "p/rows.jsonl", "p/data/a.jsonl", "p/run/data/manifest.json", "p/run/report.html"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "p/run/data/held_out").mkdir()
    (tmp_path / "p/x/data/held_out").mkdir(parents=True)
    (tmp_path / "p/mlruns").mkdir()
    os.link(tmp_path / "p/rows.jsonl", tmp_path / "p/prog/twin.jsonl")
    (tmp_path / "link").symlink_to("p")
    return tmp_path


@pytest.mark.parametrize(
    ("shown", "hidden", "covered"),
    [
        (["p"], [], {"p/run", "p/x/data/held_out", "p/mlruns"}),
        (["p"], ["p/data"], {"p/run", "p/x/data/held_out", "p/mlruns", "p/data"}),
        (["p"], ["link/data/a.jsonl"], {"p/run", "p/x/data/held_out", "p/mlruns", "p/data/a.jsonl"}),
        (["link"], ["p/data"], {"link/run", "link/x/data/held_out", "link/mlruns", "link/data"}),
        (["p/prog"], ["p/rows.jsonl"], {"p/prog/twin.jsonl"}),
        (["p/prog"], ["p/data", "absent"], set()),
        (["p/data", "p/x"], ["p", "p/data/a.jsonl"], {"p/data/a.jsonl", "p/x/data/held_out"}),
    ],
)
def test_what_is_covered(files: Path, shown: list[str], hidden: list[str], covered: set[str]):
    visible = [files / one for one in shown]
    assert set(masks(visible, visible, [files / one for one in hidden])) == {files / one for one in covered}


def test_what_is_shown_within_something_hidden_has_its_own_masks(files: Path):
    visible, hidden = [files / "p", files / "p/data"], [files / "p/data/a.jsonl"]
    assert files / "p/data/a.jsonl" in masks(
        [*visible, files / "p/run/report.html"], visible, [*hidden, files / "p/run"]
    )
    assert masks(visible, [], [*hidden, files / "p"]) == hidden


@pytest.mark.parametrize(
    ("path", "hidden", "why"),
    [
        ("p", [], None),
        ("p/prog", ["p/rows.jsonl"], None),
        ("p/rows.jsonl", ["p/rows.jsonl"], "it may hold held-out rows"),
        ("link/data", ["p/data"], "it may hold held-out rows"),
        ("p/data/a.jsonl", ["p/data"], "p/data, in which it lies, may hold"),
        ("p/run", [], "it may hold held-out rows"),
        ("p/run/data/held_out", [], "it may hold held-out rows"),
        ("p/run/report.html", [], None),
    ],
)
def test_what_cannot_be_shown(files: Path, path: str, hidden: list[str], why: str | None):
    said = refusal(files / path, [files / one for one in hidden])
    assert said is None if why is None else why in str(said)
