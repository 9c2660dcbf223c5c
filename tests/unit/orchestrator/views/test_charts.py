"""Charts: what others named is text, what is no number leaves a gap, and each figure has its own."""

import json
import math
from pathlib import Path

import pytest

from evaluation.figures import FIGURES
from orchestrator.record.palette import COLOURS, DASHES
from orchestrator.views.charts import as_label, charted, figure_chart, styles
from orchestrator.views.leaderboard import Leaderboard, build
from orchestrator.views.progress import CURVE_POINTS, read_progress, train_curve
from tests.fabricate import fabricate, read


def test_every_figure_but_perplexity_has_a_chart(tmp_path: Path) -> None:
    snapshot = read(fabricate(tmp_path / "run")[1])
    board = build(snapshot, "finished")
    assert [figure.name for figure in charted(board)] == [name for name in FIGURES if name != "perplexity"]
    for name in (figure.name for figure in charted(board)):
        chart = figure_chart(snapshot, board, name)
        assert chart.key == f"test-{name}"
        lines = {trace["name"].rpartition("  ")[0]: trace["y"] for trace in chart.figure["data"]}
        assert lines["llama"] == [row.test[name] for row in board.lineages[0].rounds]
        assert ("published llama" in lines) == (name == "loss")
        assert FIGURES[name].title in chart.label
        if FIGURES[name].form.endswith("%"):
            assert chart.figure["layout"]["yaxis"]["tickformat"] == ".0%"


def test_a_model_without_a_figure_is_left_out_of_its_chart(tmp_path: Path) -> None:
    snapshot = read(fabricate(tmp_path / "run")[1])
    data = json.loads(build(snapshot, "finished").to_text())
    data.pop("format")
    for row in data["lineages"][0]["rounds"][:2]:
        del row["test_bits_per_byte"]
    del data["references"][0]["test_bits_per_byte"]
    chart = figure_chart(snapshot, Leaderboard.model_validate(data), "bits_per_byte")
    lines = {trace["name"].rpartition("  ")[0]: trace["x"] for trace in chart.figure["data"]}
    assert lines == {"llama": [2], "sn9": [0, 1, 2]}


def test_what_is_no_number_leaves_a_gap(tmp_path: Path) -> None:
    snapshot = read(fabricate(tmp_path / "run", lineages=("llama",))[1])
    board = build(snapshot, "finished")
    board.lineages[0].rounds[0].test["loss"] = math.inf
    chart = figure_chart(snapshot, board, "loss")
    assert chart.figure["data"][0]["y"][0] is None
    json.dumps([chart.figure, chart.whole, chart.close], allow_nan=False)


@pytest.mark.parametrize("settled", [{}, {"llama": 1}])
def test_competitors_keep_their_colour(tmp_path: Path, settled: dict[str, int]) -> None:
    looks = styles(read(fabricate(tmp_path / "run", settled=settled)[1]))
    assert list(looks) == ["lora-r16", "full", "own"]
    assert list(looks.values()) == [(colour, DASHES[0]) for colour in COLOURS[:3]]


def test_names_are_text() -> None:
    assert as_label("<b>%{x}</b>\n!") == "&lt;b&gt;% {x}&lt;/b&gt; !"
    assert len(as_label("x" * 100)) == 48


def test_train_curve_is_averaged_down_and_takes_only_numbers(tmp_path: Path) -> None:
    path = tmp_path / "progress.jsonl"
    steps = [{"event": "step", "tokens": n, "loss": float(n % 2)} for n in range(1, 1201)]
    odd = [{"event": "step", "tokens": 1, "loss": loss} for loss in ("<b>", None, float("nan"))]
    path.write_text("".join(json.dumps(e) + "\n" for e in [{"event": "started"}, *steps, *odd]), encoding="utf-8")
    curve = train_curve(path)
    assert len(curve) == CURVE_POINTS
    assert curve[-1] == (1200.0, 0.5)
    assert train_curve(tmp_path / "none") == []


def test_progress_is_the_newest_of_each_number(tmp_path: Path) -> None:
    snapshot = read(fabricate(tmp_path / "run", settled={"llama": 0}, training=True)[1])
    entry = snapshot.lineages[0].rounds[0].entries[0]
    progress = read_progress(entry.progress_file, snapshot.config.budget.allowance)
    assert (progress.tokens, progress.step, progress.share) == (24_000, 12, 0.24)
    assert progress.speed == pytest.approx(24_000 / 14.4)
    assert progress.seconds_left == pytest.approx(14.4 * 0.76 / 0.24)
    with entry.progress_file.open("a") as stream:
        stream.write('{"event": "ended", "tokens": 30000}\n{"event": "st')
    assert read_progress(entry.progress_file, snapshot.config.budget.allowance).tokens == 30_000
