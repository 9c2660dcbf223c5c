"""The report: complete, self-contained, safe with other people's text, and there from the first minute on."""

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cluster.rounding import Rounding
from cluster.text import discreet, harmless
from evaluation.data.splits import Manifest
from evaluation.figures import FIGURES
from evaluation.scorecard import Scorecard
from orchestrator.field.roster import RosterEntry
from orchestrator.record.events import State
from orchestrator.record.records import Verdict
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.spent import Spent
from orchestrator.views.columns import RECIPE_COLUMNS
from orchestrator.views.headline import change, in_a_sentence
from orchestrator.views.leaderboard import Leaderboard, build
from orchestrator.views.report import describe, intervals, write_report
from orchestrator.views.words import duration
from tests.browser import browser_page
from tests.fabricate import COMPETITORS, REPEATED, fabricate, read, repeated_loss
from tests.faked import allocated, faked_config, play
from tests.page import Page

EVIL = '"><img src=x onerror=alert(1)></p></script><script>alert(1)</script>&amp;'
Whole = tuple[RunDirectory, Page]
FORFEIT = "RuntimeError: CUDA out of memory"
REJECTED = "its tokenizer differs from the base's"


def render(run: RunDirectory, state: State = "finished") -> Page:
    return Page(write_report(read(run), state))


def board_of(run: RunDirectory) -> Leaderboard:
    return build(read(run), "finished")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """A finished run with a forfeit and a rejected submission, and its page."""
    _, run = fabricate(
        tmp_path_factory.mktemp("whole") / "run",
        rounds=3,
        forfeits={("llama", 2, "own"): FORFEIT},
        rejections={("sn9", 1, "full"): REJECTED},
        samples=[("Name a colour.\n", "Blue,\n  say.")],
    )
    return run, render(run)


def test_page_loads_nothing(whole: Whole) -> None:
    page = whole[1]
    assert page.links
    assert [link for link in page.links if not link.startswith(("#", "data:", "lineages/"))] == []
    assert "url(" not in page.style
    assert "@import" not in page.style
    assert sum("plotly.js v" in script for script in page.scripts) == 1


def test_every_entry_has_its_row(whole: Whole) -> None:
    run, page = whole
    entries = [e for x in board_of(run).lineages for r in x.rounds for e in r.entries]
    assert len(entries) == 2 * 3 * 3
    for e in entries:
        wanted = [e.reason] if e.status != "scored" else [f"{e.validation_loss:.4f}"]
        wanted.append(f"{e.train_tokens:,}")
        rows = [row for row in page.rows if row[0].startswith(e.competitor) and len(row) > 4]
        assert any(all(any(want in cell for cell in row) for want in wanted) for row in rows), e


def test_what_each_entry_cost_stands_in_its_round(whole: Whole) -> None:
    run, page = whole
    lineage = board_of(run).lineages[0]
    (row,) = (row for row in page.rows if row[0] == "own" and row[-1] == f"{200_000 + 2 + 2:,}")
    spent = [e.device_seconds for r in lineage.rounds for e in r.entries if e.competitor == "own"]
    assert row[1:-2] == [duration(spent[0]), f"{duration(spent[1])}forfeit", duration(spent[2])]
    assert row[-2] == duration(sum(spent))


def test_what_is_stored_in_float32_says_why(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", lineages=("llama",), rounds=1)
    file = run.entry("llama", 1, "full") / "scorecard.json"
    for lost, shown in ((0.05, False), (0.92, True)):
        merge = Rounding(dtype="bfloat16", lost=lost)
        Scorecard.read(file).model_copy(update={"merge": merge}).write(file)
        assert ("stored in float32: bfloat16 would lose 92%" in render(run).text) == shown


def test_forfeits_and_rejections_say_why(whole: Whole) -> None:
    told = [
        row[1].split(maxsplit=1) for row in whole[1].rows if len(row) > 2 and row[1].startswith(("forfeit", "rejected"))
    ]
    logs = [f"lineages/{where}/log.txt" for where in ("llama/round-002/own", "sn9/round-001/full")]
    assert told == [["forfeit", f"{FORFEIT} {logs[0]}"], ["rejected", f"{REJECTED} {logs[1]}"]]
    assert [link for link in whole[1].links if link.startswith("lineages/")] == logs
    assert all((whole[0].root / log).is_file() for log in logs)


def test_verdicts_are_given_in_words(whole: Whole) -> None:
    run, page = whole
    reasons = [reason for x in board_of(run).lineages for r in x.rounds for reason in r.reasons]
    assert len(reasons) >= 2 * 3 * 2
    assert [reason for reason in reasons if reason not in page.text] == []


def test_recipes_are_a_section_only_where_they_are_repeated(tmp_path: Path, whole: Whole) -> None:
    assert "#recipes" not in whole[1].links
    _, run = fabricate(tmp_path / "run", lineages=("llama",), competitors=REPEATED, loss=repeated_loss)
    page = render(run)
    assert page.links.count("#recipes") == 2  # the contents, and where titles are explained
    recipes = [one for row in board_of(run).lineages[0].rounds for one in row.recipes]
    assert len(recipes) == 2 * 3
    for one in recipes:
        assert [one.recipe, *(column.cell(one) for column in RECIPE_COLUMNS)] in page.rows
        assert one.words in page.text
    assert any(row[0].startswith("hot-1") and "a run of hot" in row[0] for row in page.rows)


def test_headline_compares_with_every_reference(whole: Whole) -> None:
    run, page = whole
    board = board_of(run)
    for lineage in board.lineages:
        base, last = lineage.rounds[0], lineage.rounds[-1]
        assert base.test_loss is not None
        assert last.test_loss is not None
        assert f"{base.test_loss:.4f} → {last.test_loss:.4f}" in page.text
        _, figures, words = next(row for row in page.rows if row[0] == f"base model{lineage.base} ")
        assert [FIGURES[key].text(value) in figures for key, value in base.test.items()] == [True] * len(FIGURES)
        assert words == f"{1 - last.test_loss / base.test_loss:.1%} lower"
    shown = [row for row in page.rows if row[0].startswith("instruct")]
    assert len(shown) == 2 + 1  # a headline each, and the chart as a table
    assert all(f"{board.references[0].test_loss:.4f}" in row[1] for row in shown)


def test_first_come_the_result_in_a_sentence_and_the_chart(whole: Whole) -> None:
    run, page = whole
    board = board_of(run)
    base, last = board.lineages[0].rounds[0], board.lineages[0].rounds[-1]
    bytewise = change(last.test["bits_per_byte"], board.references[0].test["bits_per_byte"])
    sentence = in_a_sentence(board)
    assert sentence.startswith(
        f"llama: test loss {base.test_loss:.4f} → {last.test_loss:.4f} in 3 rounds, per byte {bytewise} than that of"
        " instruct; sn9: test loss "
    )
    assert next(iter(page.figures)) == "test-loss"
    places = [page.text.index(one) for one in (sentence, "Test loss over rounds", "by competition", "base model")]
    assert places == sorted(places)


def test_sentence_where_nothing_has_won(tmp_path: Path) -> None:
    everyone = {("llama", 1, c["name"]): FORFEIT for c in COMPETITORS}
    _, run = fabricate(tmp_path / "run", lineages=("llama",), rounds=1, forfeits=everyone, references=[])
    loss = board_of(run).lineages[0].rounds[0].test_loss
    assert (
        in_a_sentence(board_of(run)) == f"llama: nothing has proved better than the base model ({loss:.4f}) in 1 round."
    )
    _, run = fabricate(tmp_path / "other", settled={"llama": 0})
    assert in_a_sentence(board_of(run)) == "No round is settled yet."


def test_samples_stand_side_by_side(whole: Whole) -> None:
    run, page = whole
    assert "Name a colour." in page.text
    assert page.text.count("Blue,\n  say.") == 2
    for lineage in board_of(run).lineages:
        champion = lineage.rounds[-1].champion
        assert not champion.is_base
        assert f"what base of {lineage.name} writes" in page.text
        assert f"what {champion} of {lineage.name} writes" in page.text


def test_method_names_splits_seed_and_config(whole: Whole) -> None:
    run, page = whole
    assert "4,858 rows, all that competitors see" in page.text
    assert "130 left out (duplicate)" in page.text
    assert "at 95%" in page.text
    assert str(run.config_file) in page.text
    assert page.pre.strip() == run.config.to_yaml().strip()


def test_chart_has_a_line_for_each_lineage_and_reference(
    whole: Whole,
) -> None:
    run, page = whole
    traces, board = page.traces(), board_of(run)
    assert set(traces) == {"llama", "sn9", "instruct", "published llama"}
    for lineage in board.lineages:
        assert traces[lineage.name]["x"] == [0, 1, 2, 3]
        assert traces[lineage.name]["y"] == [r.test_loss for r in lineage.rounds]
        assert traces[lineage.name]["line"]["dash"] == "solid"
        assert page.traces("test-bits_per_byte")[lineage.name]["y"] == [r.test["bits_per_byte"] for r in lineage.rounds]
    assert set(traces["instruct"]["y"]) == {board.references[0].test_loss}
    assert traces["llama"]["line"]["color"] != traces["sn9"]["line"]["color"]


def test_published_series_is_dashed_and_starts_at_the_base(
    whole: Whole,
) -> None:
    page = whole[1]
    published = page.traces()["published llama"]
    assert (published["x"], published["y"]) == ([0, 1, 2], [4.78, 0.87, 0.70])
    assert published["line"]["dash"] == "dash"
    assert "published llama" not in page.traces("test-bits_per_byte")  # nobody published its bytes


def test_hollow_markers_are_defended_titles(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", lineages=("one",), loss=lambda x, n, c: 1.0 if n else 3.0)
    page = render(run)
    assert page.traces()["one"]["marker"]["symbol"] == ["circle", "circle", "circle-open"]
    champion = board_of(run).lineages[0].rounds[1].champion.competitor
    assert f"Round 1: {champion} takes the title" in page.text
    assert f"Round 2: {champion} of round 1 defends the title" in page.text


def test_train_curves_of_every_round(whole: Whole) -> None:
    page = whole[1]
    keys = {f"train-{lineage}-{number}" for lineage in ("llama", "sn9") for number in (1, 2, 3)}
    assert {key for key in page.figures if key.startswith("train-")} == keys
    assert set(page.traces("train-llama-2")) == {"lora-r16", "full", "own"}
    assert max(page.traces("train-llama-2")["own"]["x"]) == 24_000  # it died early


def test_other_peoples_text_stays_text(tmp_path: Path) -> None:
    references = [{"name": EVIL, "model": EVIL}, {"name": EVIL + " two", "published": [2.0]}]
    arguments: dict[str, Any] = {"lineages": ("llama",), "references": references, "samples": [(EVIL, EVIL)]}
    settings = {"data": {"source": EVIL, "prompt": "{a}" + EVIL, "completion": "{b}", "validation": 60, "test": 60}}
    _, run = fabricate(
        tmp_path / "evil",
        **arguments,
        forfeits={("llama", 1, "own"): EVIL},
        rejections={("llama", 1, "full"): EVIL},
        settings=settings,
    )
    page = render(run)
    good = render(fabricate(tmp_path / "good", lineages=("llama",))[1])
    assert "img" not in page.tags
    assert page.tags.count("script") == good.tags.count("script")
    assert page.text.count(EVIL) >= 6
    assert page.text.count(harmless(EVIL)) >= 2  # reasons, as they are on record
    names = [trace["name"] for trace in page.figures["test-loss"]["data"]]
    assert not any("<" in name for name in names)  # plotly's text is HTML too
    assert sum("&lt;img src=x" in name for name in names) == 2


def test_what_it_cost_is_said_where_there_are_prices(tmp_path: Path, whole: Whole) -> None:
    assert "In money" not in whole[1].text
    _, run = fabricate(tmp_path / "run", rounds=1)
    run.write(Spent(seconds={"llama": {"H100": 9000.0}}, prices={"H100": 4.0}), run.spent_file)
    assert "In money, scoring and lost work included: 10.00 (2.50 hours of H100)." in render(run).text


@pytest.mark.parametrize("settled", [{}, {"llama": 0}, {"llama": 1}, {"llama": 2, "sn9": 0}])
def test_unfinished_run(tmp_path: Path, settled: dict[str, int]) -> None:
    _, run = fabricate(tmp_path / "run", settled=settled)
    page = render(run, "running")
    lines = {name: len(trace["x"]) for name, trace in page.traces().items() if name in ("llama", "sn9")}
    assert lines == {name: rounds + 1 for name, rounds in settled.items()}
    assert "running" in page.text
    assert page.text.count("Its base model is hub/") == 2 - len(settled)
    assert page.figures["test-loss"]["layout"]["xaxis"]["range"][1] > run.config.rounds


def test_round_in_flight_shows_its_curves(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", settled={"llama": 1}, training=True)
    shutil.rmtree(run.entry("llama", 2, "own"))
    page = render(run, "running")
    assert list(page.traces("train-llama-2")) == ["lora-r16", "full"]


def test_no_champion_yet_and_no_data_record(tmp_path: Path) -> None:
    everyone = {("llama", 1, c["name"]): FORFEIT for c in COMPETITORS}
    _, run = fabricate(tmp_path / "run", lineages=("llama",), rounds=1, forfeits=everyone)
    run.manifest_file.unlink()
    page = render(run)
    assert "champion: still the base model" in page.text
    assert "% lower" not in page.rows[1][2]


def test_near_duplicates_are_counted_with_examples(whole: Whole) -> None:
    page = whole[1]
    assert "17 rows outside validation and test nearly say what a row in there says, 15 by the prompt" in page.text
    assert "were removed" in page.text
    assert "2 held-out texts are like very many rows" in page.text
    assert ["Name <b>three</b> co…", "test" + "3" * 16 + ", its prompt", "86%"] in page.rows


def test_near_duplicates_that_are_kept_are_said_to_be(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", lineages=("llama",), rounds=1)
    manifest = Manifest.read(run.manifest_file)
    assert manifest.near_duplicates is not None
    kept = manifest.near_duplicates.model_copy(update={"handling": "keep", "rows": 1, "forms": {}, "examples": []})
    for found in (kept, None):
        manifest.model_copy(update={"near_duplicates": found}).write(run.manifest_file)
        page = render(run)
        assert ("is trained on all the same (data.near_duplicates: keep)" in page.text) == (found is kept)
        assert ("1 row outside validation and test nearly says" in page.text) == (found is kept)


def test_report_is_the_same_each_time(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", rounds=1)
    first = write_report(read(run), "finished").read_bytes()
    assert write_report(read(run), "finished") == run.report_file
    assert run.report_file.read_bytes() == first
    assert [p.name for p in run.root.iterdir() if p.name.endswith(".tmp")] == []


def test_interval_is_proven_only_above_the_margin(whole: Whole) -> None:
    run, _ = whole
    row = board_of(run).lineages[0].rounds[1]
    (low,) = (e.improvement_low for e in row.entries if e.improvement_low is not None)
    (span,) = intervals(row, 0.0).values()
    assert span.proven
    assert 0 <= span.bar < span.low < span.mean <= 100
    assert [one.proven for one in intervals(row, low).values()] == [False]


def test_recipes_in_a_few_words(whole: Whole) -> None:
    words = [describe(RosterEntry(recipe=recipe)) for recipe in whole[0].config.competitors]
    assert words == [
        "sft, lora r16, adamw_torch, 0.0002 linear, batch 16",
        "sft, full, adamw_torch, 1e-05 linear, batch 16",
        "python, my_recipes.soup:train",
    ]


def test_change_in_words() -> None:
    assert change(0.5, 2.0) == "75.0% lower"
    assert change(1.1, 1.0) == "10.0% higher"
    assert change(1.0, 1.00001) == "the same"
    assert change(4.6, 2.0) == "2.3 times as high"
    assert change(None, 1.0) == change(1.0, None) == "–"


def test_passwords_stay_at_home(tmp_path: Path) -> None:
    assert discreet("uri: https://bob:pa55@mlflow:5000/x") == "uri: https://…@mlflow:5000/x"
    uri = "http://bob:pa55word@mlflow:5000"
    _, run = fabricate(tmp_path / "run", settled={}, settings={"tracking": {"uri": uri}})
    page = write_report(read(run), "stopped").read_text(encoding="utf-8")
    assert "pa55word" not in page
    assert "mlflow:5000" in page


def test_import_is_light() -> None:
    heavy = "{'torch', 'ray', 'mlflow', 'plotly', 'jinja2', 'transformers'}"
    code = f"import sys, orchestrator.views.report; print(*{heavy} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


@pytest.mark.browser
def test_browser_draws_every_chart_offline(whole: Whole) -> None:
    run, parsed = whole
    asked, complaints = [], []
    with browser_page(500, 900) as page:
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.goto(run.report_file.as_uri())
        page.locator(".chart .main-svg .subplot").nth(len(parsed.figures) - 1).wait_for(state="attached")
        page.get_by_role("button", name="zoom to round 1 and later").first.click()
        zoomed = page.evaluate("document.getElementById('test-loss').layout.xaxis.range[0]")
        width = page.evaluate("document.documentElement.scrollWidth")
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert complaints == []
    assert zoomed == 0.85
    assert width == 500  # wide tables scroll inside their own box


def test_a_champions_recipe_is_what_trained_it_and_not_the_one_that_its_name_began_with(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    played = play(allocated(tmp_path / "in"), tmp_path / "run")
    lineage = played.lineages[0]
    champion = lineage.entry(lineage.champion)
    assert champion is not None
    rate = describe(champion.entry).split(", ")[3]
    assert rate != describe(lineage.competitors[champion.name]).split(", ")[3], "a line has its own"
    page = write_report(played, "finished").read_text(encoding="utf-8")
    assert page.count(rate) >= 3, "in the headline, in the round and among the ancestors"


def test_why_the_next_seed_is_not_the_champion_is_said_as_the_verdict_says_it(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    settings = {"rounds": 1, "selection": {"guardrails": [{"metric": "token_accuracy"}]}}
    played = play(faked_config(tmp_path / "in", **settings), tmp_path / "run")
    lineage = played.lineages[0].lineage.name
    file = played.run.round(lineage, 1) / "verdict.json"
    verdict = Verdict.read(file)
    why = "This model is better, but its token accuracy is worse: the base keeps the title."
    kept = {"champion": verdict.champion_before, "dethroned": False, "reasons": [why]}
    verdict.model_copy(update=kept).write(file)
    page = render(played.run)
    assert verdict.seed_next.in_words + " holds no title" in page.text
    assert f"The verdict of round 1: {why}" in page.text
    assert "by less than can be proven" not in page.text
    assert "and if its token accuracy there is worse by no more than 0." in page.text


def test_what_chooses_is_named_by_the_metric_of_the_config(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    chosen = {"metric": "token_accuracy"}
    played = play(faked_config(tmp_path / "in", rounds=1, selection=chosen), tmp_path / "run")
    page = render(played.run)
    for words in (
        "The winner is the entry with the highest validation token accuracy of its round.",
        "show that its token accuracy is better than the champion’s. The chance",
        "The model with the highest validation token accuracy so far; no proof is asked for that.",
        "Gain: by how much the token accuracy is better than that of the champion",
    ):
        assert words in page.text
    assert "lowest validation loss" not in page.text
    # An allocation goes on with what it says, whatever is lowest.
    page = render(play(allocated(tmp_path / "in"), tmp_path / "allocated").run)
    assert "start from: what the allocation goes on with." in page.text
    assert "The winner is the entry with the lowest validation loss of its round." in page.text
