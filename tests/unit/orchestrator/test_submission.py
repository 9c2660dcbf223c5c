"""What `tournament submit` sends of a config's folder, and what it refuses before anything is sent."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import UserError
from cluster.on_ray.submission import MOST_BYTES
from orchestrator.config.loading import load_config
from orchestrator.config.tournament import TournamentConfig
from orchestrator.submission import PACKAGES, lay_out, packages_in, submit_tournament, to_send

BESIDE = {"mine.yaml", "recipe.py", "code/train.py", "code/data/words.txt", "models/base/config.json", "big.bin"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A config's folder with all that may lie in one."""
    made = tmp_path / "mine"
    left_out = (
        "runs/x/report.html",
        "data/other.jsonl",
        ".git/HEAD",
        ".env",
        ".venv/bin/python",
        "code/__pycache__/a.pyc",
    )
    for name in (*BESIDE, "data/rows.jsonl", *left_out):
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(name)
    return made


def write(folder: Path, source: str = "data/rows.jsonl", base: str = "models/base", **more: Any) -> Path:
    config = {
        "name": "mine",
        "data": {"source": source, "prompt": "{a}", "completion": "{b}"},
        "lineages": [{"name": "one", "base": base}],
        "rounds": 1,
        "budget": {"steps": 1},
        "competitors": [{"name": "same", "kind": "unchanged"}],
    }
    (folder / "mine.yaml").write_text(yaml.safe_dump(config | more))
    return folder / "mine.yaml"


def sent(path: Path, exclude: tuple[str, ...] = ()) -> set[str]:
    return {file.relative_to(path.parent).as_posix() for file in to_send(loaded(path), path, exclude)}


def loaded(path: Path) -> TournamentConfig:
    return load_config(path)


def test_the_folder_is_sent_without_histories_and_runs_but_with_what_the_config_names(folder: Path):
    assert sent(write(folder)) == BESIDE | {"data/rows.jsonl"}
    assert sent(write(folder, source="data/*.jsonl")) == BESIDE | {"data/rows.jsonl", "data/other.jsonl"}
    assert sent(write(folder, source="hf://who/what", base="who/model")) == BESIDE
    assert sent(write(folder, source="/shared/rows.jsonl", base="/shared/base")) == BESIDE
    assert sent(write(folder, source="hf://who/what"), ("*.bin", "code/data", "/models")) == {
        "mine.yaml", "recipe.py", "code/train.py", "models/base/config.json",
    }  # fmt: skip


@pytest.mark.parametrize(("source", "base"), [("../rows.jsonl", "who/model"), ("absent.jsonl", "who/model")])
def test_data_that_is_not_in_the_folder_is_refused(folder: Path, source: str, base: str):
    (folder.parent / "rows.jsonl").write_text("{}")
    with pytest.raises(UserError, match=rf"mine.yaml: data.source: {source}: is not in {folder}"):
        sent(write(folder, source, base))


def test_a_base_that_is_not_in_the_folder_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch):
    (folder.parent / "elsewhere/base").mkdir(parents=True)
    monkeypatch.chdir(folder.parent)  # where `tournament run` would find it
    for base in ("elsewhere/base", "./models/absent", "a/b/c"):
        with pytest.raises(UserError, match=rf"mine.yaml: lineages\[one\].base: {base}: is not in {folder}"):
            sent(write(folder, base=base))


def test_too_much_is_refused_naming_the_largest_and_what_is_left_out_does_not_count(folder: Path):
    with (folder / "big.bin").open("wb") as file:
        file.truncate(MOST_BYTES)  # takes no room on the disk
    path = write(folder)
    with pytest.raises(UserError, match=r"mine: 100 MiB would be sent with mine.yaml.*the largest is big.bin, 100 MiB"):
        sent(path)
    assert "big.bin" not in sent(path, ("*.bin",))


def test_what_is_laid_out_holds_the_same_in_the_same_places(folder: Path, tmp_path: Path):
    path = write(folder)
    files = to_send(loaded(path), path)
    (tmp_path / "staged").mkdir()
    lay_out(files, path.parent, tmp_path / "staged")
    for file in files:
        assert (tmp_path / "staged" / file.relative_to(folder)).read_bytes() == file.read_bytes()


@pytest.mark.parametrize(
    ("run_dir", "address", "reason"),
    [
        ("runs/mine", "http://127.0.0.1:1", "--run-dir runs/mine: on the cluster this would be a temporary folder"),
        ("/shared/mine", "127.0.0.1:6379", "--address 127.0.0.1:6379: give that of the head's dashboard"),
        ("/shared/mine", "http://127.0.0.1:1", "no Ray cluster answers at http://127.0.0.1:1: "),
    ],
)
def test_a_call_that_cannot_work_is_refused(
    folder: Path, run_dir: str, address: str, reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    path = write(folder)
    with pytest.raises(UserError, match=reason):
        submit_tournament(loaded(path), path, Path(run_dir), address, "again", None)  # type: ignore[arg-type]


def test_our_packages_are_those_that_are_installed():
    pyproject = (Path(__file__).parents[3] / "pyproject.toml").read_text()
    assert all((package / "__init__.py").is_file() and f'"{package.name}"' in pyproject for package in PACKAGES)


def test_of_our_packages_nothing_is_sent_but_what_is_imported(tmp_path: Path):
    package = tmp_path / "checkout/cluster"
    for name in ("__init__.py", "bucket/tree.py", "mlflow/.env", "kuberay/secret.yaml", "__pycache__/tree.pyc"):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text("PASSWORD=mine")
    (copy,) = packages_in(tmp_path / "staged", [package])
    sent = {file.relative_to(copy).as_posix() for file in copy.rglob("*") if file.is_file()}
    assert sent == {"__init__.py", "bucket/tree.py"}


def test_what_is_sent_of_our_packages_is_what_a_wheel_holds(tmp_path: Path):
    copies = packages_in(tmp_path)
    assert [copy.name for copy in copies] == [package.name for package in PACKAGES]
    assert (tmp_path / "orchestrator/views/report.html.j2").is_file()
    assert not [*tmp_path.rglob("*.yaml")]
