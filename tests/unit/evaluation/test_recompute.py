"""The independent check agrees with a real tournament, and finds whatever was changed in its record afterwards."""

import ast
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as pq
import pytest
from safetensors.torch import load_file, save_file

from cluster.in_process import InProcessWorkers
from competitors.contract import Brief, Report
from evaluation import recompute
from tests.faked import faked_config, play
from tests.tiny import tiny_model

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


def change_table(file: Path, column: str, change: Callable[[Any], Any]) -> None:
    """Change the first value of a column."""
    rows = pq.read_table(file).to_pylist()
    rows[0][column] = change(rows[0][column])
    file.chmod(0o600)
    pq.write_table(pyarrow.Table.from_pylist(rows), file)


def change_record(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


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
        (lambda run: change_record(run / ROUND / "verdict.json", winner="b"), "the winner's loss is the lowest"),
        (lambda run: change_record(run / ROUND / "verdict.json", champion="b@1"), "l round 1: champion"),
        (lambda run: change_record(run / ROUND / "verdict.json", seed_next="base"), "next seed's loss"),
        (lambda run: change_record(run / ROUND / "verdict.json", validation_loss=1.0), "l round 1: its loss"),
        (lambda run: change_record(run / ROUND / "verdict.json", entries=[]), "who was scored"),
        (lambda run: change_record(run / ROUND / "verdict.json", dethroned=False), "l round 1: champion"),
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
