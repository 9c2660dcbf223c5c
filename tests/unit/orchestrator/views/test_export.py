"""Export: a copy that shares nothing with the run, a card, and a refusal in one line."""

from pathlib import Path

import pytest

from cluster.errors import BrokenRecord, UserError
from evaluation.figures import FIGURES
from orchestrator.record.run_directory import RunDirectory
from orchestrator.views.export import export_champion
from tests.fabricate import COMPETITORS, fabricate, read


def with_model(run: RunDirectory, lineage: str = "llama") -> Path:
    """Put something that looks like a model where the champion is to lie."""
    folder = run.round(lineage, read(run).lineage(lineage).champion.round) / "champion"
    folder.mkdir()
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text(name)
    return folder


def test_it_is_a_copy_that_shares_nothing(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run")
    folder = with_model(run)
    out = export_champion(read(run), tmp_path / "out", "llama")
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert (folder / "model.safetensors").stat().st_nlink == 1
    (out / "model.safetensors").write_text("spoilt")
    assert (folder / "model.safetensors").read_text() == "model.safetensors"
    assert not (folder / "README.md").exists()


def test_the_card_says_what_was_scored(tmp_path: Path) -> None:
    data = {"source": ["https://bob:pa55@hub/x.csv"], "prompt": "{a}`\n", "completion": "{b}", "validation": 60}
    _, run = fabricate(tmp_path / "run", lineages=("llama",), settings={"data": data | {"test": 60}})
    with_model(run)
    card = (export_champion(read(run), tmp_path / "out", None) / "README.md").read_text()
    lineage = read(run).lineages[0]
    assert "base_model: hub/llama-3b\n" in card
    assert f"won in round {lineage.champion.round} by `{lineage.champion.competitor}`" in card
    ours, base = lineage.scorecard_of(lineage.champion), lineage.scorecard
    assert ours is not None
    assert base is not None
    for name, figure in FIGURES.items():
        assert f"| {figure.text(base.test_figures[name])} | {figure.text(ours.test_figures[name])} |" in card
    assert "pa55" not in card
    assert "`` '{a}`\\n' ``" in card


def test_what_cannot_be_exported_is_refused(tmp_path: Path) -> None:
    everyone = {("llama", 1, one["name"]): "out of memory" for one in COMPETITORS}
    _, run = fabricate(tmp_path / "run", rounds=1, forfeits=everyone)
    for dest, lineage, words in (
        ("out", None, "--lineage: this tournament has several: llama, sn9"),
        ("out", "x", "--lineage x: this tournament has llama, sn9"),
        ("run", "sn9", "run: is there already"),
        ("out", "llama", "lineage llama has no champion but its base model so far"),
    ):
        with pytest.raises(UserError, match=words):
            export_champion(read(run), tmp_path / dest, lineage)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("gone", ["champion.json", "champion"])
def test_a_champion_that_is_gone_is_named(tmp_path: Path, gone: str) -> None:
    _, run = fabricate(tmp_path / "run", lineages=("llama",))
    file = run.round("llama", 2) / gone
    if gone == "champion.json":
        file.unlink()
    with pytest.raises(BrokenRecord) as caught:
        export_champion(read(run), tmp_path / "out", None)
    assert str(caught.value).startswith(f"{file}: is missing")
    assert not (tmp_path / "out").exists()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    _, run = fabricate(tmp_path / "run", lineages=("llama",))
    with_model(run)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        export_champion(read(run), tmp_path / "file" / "out", None)
