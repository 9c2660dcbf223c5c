"""The independent check agrees with a real tournament, and finds whatever was changed in its record afterwards."""

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from cluster.in_process import InProcessWorkers
from competitors.contract import Brief, Report
from evaluation import recompute
from evaluation.compare import gain
from evaluation.data.split import Split
from evaluation.results import RowResults, write_results
from orchestrator.field.spending import level
from tests.faked import faked_config, play
from tests.simulation import SHAPES
from tests.tiny import tiny_model, tiny_rows, write_jsonl

ROUND = Path("lineages/l/round-001")


def hands_in_a_better_model(brief: Brief, report: Report) -> None:
    """In the first round; its seed after that."""
    better = brief.output_dir.parents[5] / "inputs" / "better"
    shutil.copytree(better if brief.round == 1 else brief.seed_model, brief.output_dir, dirs_exist_ok=True)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two rounds: `a` takes the title in the first, nobody in the second."""
    folder = tmp_path_factory.mktemp("recompute")
    (folder / "inputs").mkdir()
    tiny_model(folder / "inputs" / "better")
    entries = {"a": f"{__name__}:hands_in_a_better_model", "b": "tests.recipes:returns_the_seed"}
    competitors = [{"name": name, "kind": "python", "entrypoint": function} for name, function in entries.items()]
    config = faked_config(folder / "inputs", competitors=competitors, evaluation={"samples": 0})
    change_weights(folder / "inputs" / "base", 30.0)
    play(config, folder / "run", InProcessWorkers(trainers=1, evaluators=0))
    return folder / "run"


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def change_weights(model: Path, factor: float) -> None:
    weights = load_file(model / "model.safetensors")
    weights["model.embed_tokens.weight"] *= factor
    (model / "model.safetensors").unlink()  # it may have other names
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})


def change_table(file: Path, column: str, change: Callable[[Any], Any], split: str | None = None) -> None:
    """Change the first value of a column, or the first of a split."""
    rows = pq.read_table(file).to_pylist()
    row = next(row for row in rows if split is None or row["split"] == split)
    row[column] = change(row[column])
    file.chmod(0o600)
    pq.write_table(pyarrow.Table.from_pylist(rows), file)


def change_record(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def change_proof(run: Path, **changes: Any) -> None:
    file = run / ROUND / "verdict.json"
    change_record(file, proof=json.loads(file.read_text())["proof"] | changes)


def change_scorecard(scores: Path, split: str) -> None:
    file = scores / "scorecard.json"
    change_record(file, **{split: json.loads(file.read_text())[split] | {"loss": 1.0}})


def test_where_rows_rotate_each_round_is_checked_on_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "inputs").mkdir()
    tiny_model(tmp_path / "inputs" / "better")
    write_jsonl(tmp_path / "inputs" / "many.jsonl", tiny_rows(500))
    settings = {
        "data": {
            "source": str(tmp_path / "inputs" / "many.jsonl"),
            "prompt": "{instruction}",
            "completion": "{response}",
        }
        | {"validation": {"rows": 120, "rotate": True}, "test": 20, "max_tokens": 32},
        "competitors": [{"name": "a", "kind": "python", "entrypoint": f"{__name__}:hands_in_a_better_model"}],
        "evaluation": {"samples": 0},
    }
    config = faked_config(tmp_path / "inputs", **settings)
    change_weights(tmp_path / "inputs" / "base", 30.0)
    play(config, tmp_path / "run", InProcessWorkers(trainers=1, evaluators=0))
    assert recompute.main([str(tmp_path / "run")]) == 0
    table = capsys.readouterr().out
    assert "validation-2 rows, SHA-256" in table
    assert "a@1 from champion/, validation-2 loss" in table
    change_table(tmp_path / "run" / ROUND / "a/losses.parquet", "nats", lambda x: x + 9.0, "validation-2")
    assert recompute.main([str(tmp_path / "run")]) == 1
    different = [line for line in capsys.readouterr().out.splitlines() if line.startswith("DIFFERS")]
    assert any("l round 2: next seed's loss" in line for line in different), different


def test_it_shares_no_code_with_what_it_checks():
    tree = ast.parse(Path(recompute.__file__).read_text())
    names = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    names |= {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    assert not {str(name).split(".")[0] for name in names} & {"cluster", "competitors", "evaluation", "orchestrator"}


def test_it_agrees_with_a_run_that_nobody_has_touched(run: Path, capsys: pytest.CaptureFixture[str]):
    exported = Path(shutil.copytree(run / ROUND / "champion", run.parent / "exported"))
    code = recompute.main([str(run), "--exported", str(exported)])
    table = capsys.readouterr().out
    assert code == 0, table
    assert "l: a@1 from champion/, validation loss" in table
    assert "l: a@1 from exported/, test loss" in table
    assert "DIFFERS" not in table


@pytest.mark.parametrize(
    ("tamper", "found"),
    [
        (lambda run: change_table(run / ROUND / "a/losses.parquet", "nats", lambda x: x + 0.5), "a@1 from champion/"),
        (lambda run: change_table(run / ROUND / "b/losses.parquet", "nats", lambda x: x + 0.5), "round 1: b, loss"),
        (lambda run: change_weights(run / ROUND / "champion", 1.01), "a@1 from champion/, validation loss"),
        (lambda run: change_record(run / ROUND / "verdict.json", winner="b"), "the winner's loss is the best"),
        (lambda run: change_record(run / ROUND / "verdict.json", champion="b@1"), "l round 1: champion"),
        (lambda run: change_record(run / ROUND / "verdict.json", seed_next="base"), "next seed's loss"),
        (lambda run: change_record(run / ROUND / "verdict.json", validation_loss=1.0), "l round 1: its loss"),
        (lambda run: change_record(run / ROUND / "verdict.json", entries=[]), "who was scored"),
        (lambda run: change_record(run / ROUND / "verdict.json", dethroned=False), "l round 1: champion"),
        (lambda run: change_record(run / ROUND / "verdict.json", spent=0.01), "spent of the chance to err"),
        (lambda run: change_record(run / ROUND / "verdict.json", proof=None), "has something to prove"),
        (lambda run: change_proof(run, improvement=9.0), "round 1: gain on the rows that prove"),
        (lambda run: change_proof(run, improvement_low=0.001), "round 1: its lower bound"),
        (lambda run: change_proof(run, level=0.04), "round 1: its chance to err"),
        (
            lambda run: change_table(run / ROUND / "a/losses.parquet", "nats", lambda x: x + 9.0, "proof"),
            "round 1: its lower bound",
        ),
        (
            lambda run: change_table(run / ROUND / "a/losses.parquet", "nats", lambda x: x + 9e4, "proof"),
            "round 1: the title is due",
        ),
        (lambda run: change_scorecard(run / ROUND / "b", "validation"), "b, scorecard's validation loss"),
        (lambda run: change_scorecard(run / ROUND / "a", "test"), "a, scorecard's test loss"),
        (lambda run: change_scorecard(run / "lineages/l/round-000", "test"), "base, scorecard's test loss"),
        (lambda run: shutil.rmtree(run / ROUND / "champion"), "a record is gone"),
        (lambda run: change_record(run / ROUND / "verdict.json", seed_next="c@9"), "a record is gone"),
        (lambda run: change_table(run / "data/held_out/test.parquet", "prompt", str.upper), "named by their content"),
    ],
)  # fmt: skip
def test_what_was_changed_is_found(
    run: Path, tamper: Callable[[Path], None], found: str, capsys: pytest.CaptureFixture[str]
):
    tamper(run)
    assert recompute.main([str(run)]) == 1
    different = [line for line in capsys.readouterr().out.splitlines() if line.startswith("DIFFERS")]
    assert any(found in line for line in different), different


def test_a_difference_in_an_entry_of_a_verdict_is_found(run: Path, capsys: pytest.CaptureFixture[str]):
    file = run / ROUND / "verdict.json"
    entries = json.loads(file.read_text())["entries"]
    entries[0]["improvement"] += 0.001
    change_record(file, entries=entries)
    assert recompute.main([str(run), "--lineage", "l"]) == 1
    assert "l round 1: a, below the champion" in capsys.readouterr().out


def test_what_is_no_run_directory_is_said(tmp_path: Path):
    with pytest.raises(SystemExit) as ended:
        recompute.main([str(tmp_path)])
    assert ended.value.code == 2


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("group", [1, 4])
def test_its_bound_is_the_one_that_titles_are_given_by(tmp_path: Path, shape: str, group: int):
    """Though it comes about in another way."""
    rng, rows = np.random.default_rng(len(shape)), 200
    tokens = rng.integers(5, 60, rows).astype(float)
    groups = np.arange(rows, dtype=float) // group
    halves: dict[str, dict[Split, RowResults]] = {}
    for model, spread in (("base", 0.0), ("a@1", 0.15)):
        made = (tokens * (3.0 - spread * (0.1 + SHAPES[shape](rng, rows))) for _ in range(2))
        splits: tuple[Split, Split] = ("proof", "validation")
        halves[model] = {
            split: RowResults(nats, tokens, group=groups) for split, nats in zip(splits, made, strict=True)
        }
        ids = {split: [str(row) for row in range(rows)] for split in splits}
        folder = recompute.scores_of(tmp_path, model)
        folder.mkdir(parents=True)
        write_results(folder / "losses.parquet", ids, halves[model])
    ours, theirs = halves["a@1"], halves["base"]
    for chance in (0.04, 0.002, 0.0005):
        expected = gain(theirs["proof"], ours["proof"], (theirs["validation"], ours["validation"]))
        mean, low, is_doubted = recompute.gain(tmp_path, "base", "a@1", chance, "validation", "loss", None)
        assert (mean, low) == pytest.approx((expected.mean, expected.low(chance)), abs=1e-5)
        assert is_doubted == bool(expected.doubt)


def test_its_share_of_the_chance_to_err_is_the_one_that_rounds_are_given():
    config = {"rounds": 3, "selection": {"confidence": 0.95}}
    config["changes"] = [
        {"extend": 2, "from_round": 2},
        {"extend": None, "from_round": 2},
        {"extend": 1, "from_round": 4},
    ]
    for number, planned in ((1, [3]), (2, [3, 5]), (4, [3, 5, 5, 6])):
        assert recompute.level(config, number, 0.01) == pytest.approx(level(0.05, planned, 0.01))
