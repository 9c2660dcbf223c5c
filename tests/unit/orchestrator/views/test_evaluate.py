"""`evaluate`: an outside model on the same rows, paired against the champions."""

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from cluster.errors import BrokenRecord, UserError
from evaluation.figures import FIGURES
from evaluation.results import RowResults, read_results
from orchestrator.record.run_directory import RunDirectory
from orchestrator.views.evaluate import (
    Against,
    Compared,
    Evaluated,
    _champions,
    against,
    evaluate_model,
    print_evaluated,
)
from tests.fabricate import fabricate, read


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    return fabricate(tmp_path / "run")[1]


def looks_like(folder: Path, *names: str, text: str = "{}") -> Path:
    folder.mkdir(parents=True)
    for name in names:
        (folder / name).write_text(text)
    return folder


def test_it_is_paired_with_each_champion_on_the_same_rows(run: RunDirectory) -> None:
    snapshot = read(run)
    champions = _champions(snapshot, is_entry=False)
    _, split, theirs = champions["llama"]
    first, second = against(snapshot, {"proof": theirs}, champions)
    assert (first.metric, first.champion_metric, first.by_loss) == ("loss", None, None)
    assert (first.champion, first.improvement) == (snapshot.lineages[0].champion, 0.0)
    card = snapshot.lineages[0].scorecard_of(first.champion)
    assert card is not None
    assert card.proof is not None
    assert (first.rows, first.champion_loss) == (split, pytest.approx(card.proof.loss)) == ("proof", first.loss)
    assert first.champion_bits_per_byte == pytest.approx(card.proof.bits_per_byte)
    assert second.lineage == "sn9"
    loss = theirs["loss"]
    better = RowResults(loss.nats - 0.1 * loss.tokens, loss.tokens)
    gain = against(snapshot, {"proof": theirs | {"loss": better}}, champions)[0]
    assert gain.improvement == pytest.approx(0.1)
    other = RowResults(loss.nats, loss.tokens + 1)
    assert {row.improvement for row in against(snapshot, {"proof": theirs | {"loss": other}}, champions)} == {None}


def test_it_is_compared_by_the_figure_that_chooses_and_by_the_loss_beside_it(run: RunDirectory) -> None:
    snapshot = read(run)
    rules = snapshot.config.selection.model_copy(update={"metric": "token_accuracy"})
    snapshot = replace(snapshot, config=snapshot.config.model_copy(update={"selection": rules}))
    champions = _champions(snapshot, is_entry=False)
    champion, _, theirs = champions["llama"]
    card = snapshot.references["instruct"]
    accuracy = theirs["token_accuracy"]
    ours = theirs | {"token_accuracy": RowResults(accuracy.nats - 1, accuracy.tokens)}
    row = against(snapshot, {"proof": ours}, champions)[0]
    assert (row.metric, row.champion_metric) == ("token_accuracy", FIGURES["token_accuracy"].of_cost(accuracy.loss))
    assert row.improvement == pytest.approx(len(accuracy.tokens) / accuracy.tokens.sum())
    assert row.by_loss is not None
    assert row.by_loss.improvement == 0.0
    elsewhere = theirs | {"loss": RowResults(theirs["loss"].nats, theirs["loss"].tokens + 1)}
    other = against(snapshot, {"proof": elsewhere}, champions)[0]
    assert (other.improvement, other.by_loss) == (0.0, Compared(improvement=None, improvement_low=None))
    console = Console(file=io.StringIO(), width=400)
    print_evaluated(console, Evaluated(model="m", scorecard=card, against=[row, other]))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    better = f"llama: its token accuracy, which chooses, is {row.improvement:.4f} better than the champion's; the gain"
    assert better in text
    assert f"By the loss: 0.0000 nats above the champion's loss ({champion}); the gain is at least" in text
    assert "By the loss: other tokens than the champion's" in text


def test_it_is_told_in_tables_and_words(run: RunDirectory) -> None:
    snapshot = read(run)
    card = snapshot.references["instruct"]
    figures = {"loss": 0.75, "champion_loss": 1.0, "bits_per_byte": 0.25, "champion_bits_per_byte": 0.5}
    common = {"lineage": "llama", "champion": "full@2", "rows": "proof"} | figures
    rows = [Against(**common, improvement=0.25, improvement_low=0.2)]
    rows.append(Against(**common, improvement=None, improvement_low=None))
    console = Console(file=io.StringIO(), width=200)
    print_evaluated(console, Evaluated(model="/models/[/bold]", scorecard=card, against=rows))
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "/models/[/bold]" in text
    assert all(figure.title in text for figure in FIGURES.values())
    assert all(FIGURES[name].text(value) in text for name, value in card.test_figures.items())
    assert "0.2500 nats below the champion's loss (full@2); the gain is at least +0.2000" in text
    assert "only bits per byte compare: 0.2500 against 0.5000" in text


def test_wrong_calls_are_one_line(run: RunDirectory, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    adapter = looks_like(tmp_path / "adapter", "adapter_config.json", "adapter_model.safetensors")
    torn = looks_like(tmp_path / "torn", "adapter_config.json", "adapter_model.safetensors", text="{")
    listed = looks_like(tmp_path / "list", "adapter_config.json", "adapter_model.safetensors", text="[]")
    for model, prompt, words in (
        (adapter, "loud", "--prompt loud: give plain or chat"),
        (tmp_path / "empty", "plain", "holds neither a full model nor a PEFT adapter"),
        (adapter, "plain", "name it with --base"),
        (torn, "plain", "adapter_config.json cannot be read"),
        (listed, "plain", "adapter_config.json cannot be read"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            evaluate_model(read(run), model, None, prompt)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("spoil", ["gone", "torn"])
def test_rows_of_a_champion_that_cannot_be_read_are_named(run: RunDirectory, tmp_path: Path, spoil: str) -> None:
    file = run.scores("llama", read(run).lineages[0].champion) / "losses.parquet"
    assert read_results(file, "validation").tokens.sum() > 0
    if spoil == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:100])
    model = looks_like(tmp_path / "model", "config.json", "model.safetensors")
    with pytest.raises(BrokenRecord, match=r"losses\.parquet: cannot be read, for it is ") as caught:
        evaluate_model(read(run), model, None, "plain")
    assert "\n" not in str(caught.value)


def test_a_model_is_scored_as_the_tournament_scores(
    run: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from tests.tiny import tiny_model
    from tests.unit.evaluation.submissions.making import tiny_adapter

    rows = [{"row_id": f"{i:016x}", "prompt": "what is the dog ?", "completion": "a cat ."} for i in range(60)]
    run.held_out.mkdir()
    for split in ("validation", "proof", "test"):
        pq.write_table(pa.Table.from_pylist(rows), run.held_out / f"{split}.parquet")
    (run.round("llama", 1)).mkdir(parents=True, exist_ok=True)
    seed = tiny_model(run.round("llama", 1) / "seed")
    model = tiny_model(tmp_path / "model", seed=1)
    result = evaluate_model(read(run), model, None, "plain")
    monkeypatch.chdir(tmp_path)  # paths from the current folder, with --base and without
    tiny_adapter(tmp_path / "adapter", Path("model"))
    for base in (Path("model"), None):
        adapted = evaluate_model(read(run), Path("adapter"), base, "plain")
        assert adapted.scorecard.validation.loss != result.scorecard.validation.loss
    (model / "chat_template.jinja").write_text("{% for m in messages %}{{ m['content'] + ' <unk> ' }}{% endfor %}")
    assert evaluate_model(read(run), model, None, "chat").scorecard.stop == "<unk>"  # the base has no template
    (model / "tokenizer.json").write_text("{}")  # its own is not looked at
    again = evaluate_model(read(run), model, None, "plain")
    assert again.scorecard.validation.loss == result.scorecard.validation.loss
    another = evaluate_model(read(run), tiny_model(tmp_path / "another", hidden=24), None, "plain")
    assert another.scorecard.validation.loss != result.scorecard.validation.loss
    for changes, words in (
        ({"is_causal": False}, "config.json says is_causal: False, which its model does not know"),
        ({"auto_map": {"AutoModelForCausalLM": "x--y.M"}}, "config.json says auto_map"),
        ({"model_type": "own"}, "config.json says model_type: 'own', which is not known here"),
    ):
        config = json.loads((seed / "config.json").read_text())
        (model / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(UserError, match=words):
            evaluate_model(read(run), model, None, "plain")
    assert set(result.scorecard.test_figures) == {name for name, figure in FIGURES.items() if figure.judge is None}
    assert np.isfinite(result.scorecard.validation.loss)
    assert [row.improvement for row in result.against] == [None, None]  # other tokens than the made-up champions'
    assert json.loads(result.model_dump_json())["against"][0]["champion"] == str(read(run).lineages[0].champion)
