"""`tournament new` writes a config that plans and runs, and says in one line what it cannot use."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.bucket.object_store import ObjectStore
from cluster.bucket.working_copy import WorkingCopy
from cluster.errors import UserError
from cluster.in_process import InProcessWorkers
from cluster.machine import Machine
from orchestrator import cli
from orchestrator.config.loading import load_config
from orchestrator.config.schema import MODELINE, SCHEMA_FILE, schema_text
from orchestrator.driver import run_tournament
from orchestrator.planning.basis import make_field
from orchestrator.record.run_directory import RunDirectory
from orchestrator.starting.findings import held_out_of
from orchestrator.starting.new import seconds_of
from orchestrator.starting.pace import LARGEST_TIMED, Pace, pace_here
from tests.tiny import tiny_model, tiny_rows, write_jsonl
from tests.unit.orchestrator.test_bad_input import call


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def here(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a base and data."""
    (tmp_path / "base").symlink_to(base)
    write_jsonl(tmp_path / "sums.jsonl", tiny_rows(300))
    monkeypatch.chdir(tmp_path)
    known = Pace(tokens_per_second=1000.0, found_by="made up")
    monkeypatch.setattr("orchestrator.starting.findings.pace_of", lambda *_: known)
    return tmp_path


def tournament(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """What `tournament ARGUMENTS` prints."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tournament", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    said = capsys.readouterr()
    assert exit_.value.code == 0, said.err
    return said.out


def test_what_new_writes_is_planned_and_runs(here: Path, capsys: pytest.CaptureFixture[str]):
    printed = tournament(capsys, "new", "base", "sums.jsonl", "--budget", "90min")
    path = here / "base-sums.yaml"
    text = path.read_text()
    raw = yaml.safe_load(text)
    assert "wrote base-sums.yaml" in printed
    assert "full-" in printed  # the plan
    assert text.splitlines()[0] == MODELINE
    assert (here / SCHEMA_FILE).read_text() == schema_text()
    assert "300 different rows; columns: instruction, response" in text
    assert raw["data"] == {
        "source": "sums.jsonl", "prompt": "{instruction}\n", "completion": "{response}", "max_tokens": 32,
        "validation": 100, "test": 100,
    }  # fmt: skip
    assert raw["lineages"] == [{"name": "base", "base": "base"}]
    assert raw["competitors"] == "auto"
    assert raw["budget"] == {"total_tokens": 4_300_000}  # 0.8 of 5,400 s at the made-up pace

    planned = json.loads(tournament(capsys, "plan", "base-sums.yaml", "--json", "--set", "budget={tokens: 1000}"))
    # As the run command does, but over the workers of this process.
    short = ["budget={tokens: 1000}", "rounds=1", "evaluation.samples=0"]
    config = load_config(path, short, lambda config: make_field(config, here))
    run = RunDirectory(here / "run")
    workers = InProcessWorkers(trainers=1, evaluators=0)
    try:
        snapshot = run_tournament(config, path, run, workers=workers)
    finally:
        workers.close()
    assert snapshot.is_finished
    assert [recipe.name for recipe in run.config.competitors] == [entry["competitor"] for entry in planned["entries"]]
    assert run.config.competitors_by == "auto"


def test_a_run_goes_on_with_its_field_on_another_machine(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    tournament(capsys, "new", "base", "sums.jsonl")
    run_dir = here / "run"

    def on(machine: Machine) -> Any:
        monkeypatch.setattr("orchestrator.planning.basis.machine_here", lambda: machine)
        return cli._load(here / "base-sums.yaml", None, None, run_dir)

    first = on(Machine(memory_gb=8, gpus=0, cpus=2))
    RunDirectory(run_dir).adopt(first)
    elsewhere = Machine(memory_gb=80, gpus=1, gpu_memory_gb=24, cpus=8)
    assert on(elsewhere) == first
    RunDirectory(run_dir).check(on(elsewhere))
    assert cli._load(here / "base-sums.yaml", None, None, here / "other") != first


def test_a_run_in_a_bucket_goes_on_with_its_field_on_another_machine(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    tournament(capsys, "new", "base", "sums.jsonl")
    monkeypatch.setenv("TOURNAMENT_CACHE", str(here / "cache"))
    (here / "store" / "run").mkdir(parents=True)
    in_bucket = [f"cluster.storage=file://{here}/store"]

    def on(machine: Machine, folder: str) -> Any:
        monkeypatch.setattr("orchestrator.planning.basis.machine_here", lambda: machine)
        return cli._load(here / "base-sums.yaml", in_bucket, None, here / folder / "run")

    first = on(Machine(memory_gb=8, gpus=0, cpus=2), "a")
    copy = WorkingCopy(here / "a" / "run", ObjectStore(f"file://{here}/store/run")).open()
    RunDirectory(here / "a" / "run", copy).adopt(first)
    copy.close()
    assert on(Machine(memory_gb=80, gpus=1, gpu_memory_gb=24, cpus=8), "b") == first


def test_a_list_in_the_place_of_auto_is_another_config(here: Path, capsys: pytest.CaptureFixture[str]):
    tournament(capsys, "new", "base", "sums.jsonl")
    listed = load_config(here / "base-sums.yaml", ["competitors=[{name: a, kind: sft, learning_rate: 1}]"])
    run = RunDirectory(here / "run")
    run.adopt(listed)
    made = cli._load(here / "base-sums.yaml", None, None, run.root)
    with pytest.raises(UserError, match=r"belongs to another config: competitors\.full"):
        run.check(made)
    # Written out by hand, the same recipes are the same config.
    run.adopt(made)
    run.check(made.model_copy(update={"competitors_by": "hand"}))


def test_gpus_are_budgeted_in_hours(here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    node = Machine(memory_gb=500, gpus=4, gpu_memory_gb=80, cpus=64)
    monkeypatch.setattr("orchestrator.planning.basis.machine_here", lambda: node)
    monkeypatch.setattr("orchestrator.planning.place.machine_here", lambda: node)
    tournament(capsys, "new", "base", "sums.jsonl", "--budget", "2h")
    assert yaml.safe_load((here / "base-sums.yaml").read_text())["budget"] == {"total_gpu_hours": 8}


def test_paths_are_absolute_in_a_config_that_lies_elsewhere(here: Path, capsys: pytest.CaptureFixture[str]):
    (here / "configs").mkdir()
    tournament(capsys, "new", "base", "sums.jsonl", "--out", "configs/mine.yaml")
    raw = yaml.safe_load((here / "configs" / "mine.yaml").read_text())
    assert raw["data"]["source"] == str(here / "sums.jsonl")
    assert Path(raw["lineages"][0]["base"]).is_absolute()
    assert (here / "configs" / SCHEMA_FILE).is_file()


def test_a_small_budget_takes_fewer_recipes(here: Path, capsys: pytest.CaptureFixture[str]):
    said = {
        budget: tournament(capsys, "new", "base", "sums.jsonl", "--budget", budget, "--out", f"{budget}.yaml")
        for budget in ("8s", "1h")
    }
    many, few = (said[budget].count("full-") for budget in ("1h", "8s"))
    assert many > few >= 2


@pytest.mark.slow
def test_a_built_in_base_and_data_do_too(here: Path, capsys: pytest.CaptureFixture[str]):
    tournament(capsys, "new", "builtin:tiny-bpe", "builtin:quickstart")
    raw = yaml.safe_load((here / "tiny-bpe-quickstart.yaml").read_text())
    assert raw["data"]["completion"] == "{response}"


def test_the_pace_is_timed_on_real_steps(base: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("orchestrator.starting.pace.TIMED_SECONDS", 0.1)
    rows = [(row["instruction"], row["response"]) for row in tiny_rows(64)]
    timed = pace_here(base, 6_000, rows, 32)
    assert timed.tokens_per_second > 0
    assert timed.found_by.startswith("measured over")


def test_the_pace_of_a_large_base_is_estimated():
    large, larger = (pace_here(Path("there"), size, [], 32) for size in (LARGEST_TIMED + 1, 100 * LARGEST_TIMED))
    assert large.tokens_per_second > larger.tokens_per_second > 0
    assert large.found_by.startswith("estimated: 6 FLOPs a parameter")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("2h", 7200), ("90min", 5400), ("90m", 5400), ("1h30m", 5400), ("1.5 h", 5400), ("45s", 45), ("1d", 86400)],
)
def test_times(text: str, seconds: float):
    assert seconds_of(text) == seconds


def bad_rows(here: Path) -> None:
    write_jsonl(here / "sums.jsonl", [{"text": f"a {number}", "url": "b"} for number in range(200)])


def conversations(here: Path) -> None:
    turns: Any = [{"role": "user", "content": "hi"}]
    write_jsonl(here / "sums.jsonl", [{"messages": turns} for _ in range(200)])


def long_conversations(here: Path) -> None:
    turns: Any = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    write_jsonl(here / "sums.jsonl", [{"messages": turns * (1 + i % 2)} for i in range(200)])


def few_rows(here: Path) -> None:
    write_jsonl(here / "sums.jsonl", tiny_rows(20))


def one_row(here: Path) -> None:
    write_jsonl(here / "sums.jsonl", tiny_rows(1))


def few_different_rows(here: Path) -> None:
    write_jsonl(here / "sums.jsonl", 100 * tiny_rows(20))


def one_prompt(here: Path) -> None:
    write_jsonl(here / "sums.jsonl", [{"prompt": "what is ?", "answer": f"no {number}"} for number in range(200)])


def there_already(here: Path) -> None:
    (here / "base-sums.yaml").write_text("mine")


def nothing(here: Path) -> None:
    """The call itself is wrong."""


MISTAKES = {
    "columns": (bad_rows, [], "DATA: sums.jsonl has the columns text, url: no prompt and no completion among them"),
    "conversations": (conversations, [], "no single-turn conversations of user and assistant in messages"),
    "long conversations": (
        long_conversations,
        [],
        "sums.jsonl holds 1 different row (200 in all, 100 not a single-turn conversation): too few",
    ),
    "few rows": (few_rows, [], "DATA: sums.jsonl holds 20 different rows: too few to train, choose and report on"),
    "one row": (one_row, [], "DATA: sums.jsonl holds 1 different row: too few"),
    "few different rows": (few_different_rows, [], "sums.jsonl holds 20 different rows (2,000 in all): too few"),
    "one prompt": (one_prompt, [], "200 rows with 1 different prompts"),
    "little time": (nothing, ["--budget", "1s"], "--budget 1s: too little: it takes 4 s to tell two recipes apart"),
    "a file in the way": (there_already, [], "base-sums.yaml: is there already"),
    "no time": (nothing, ["--budget", "soon"], "--budget soon: give a time, such as 2h"),
    "no folder": (nothing, ["--out", "nowhere/x.yaml"], "there is no folder nowhere"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line_and_nothing_is_written(name: str, here: Path, capsys: pytest.CaptureFixture[str]):
    prepare, options, message = MISTAKES[name]
    prepare(here)
    before = sorted(here.iterdir())
    code, error = call(capsys, "new", "base", "sums.jsonl", *options)
    assert code == 1
    assert message in error
    assert error.count("\n") == 1
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("./absent", "BASE: ./absent: there is no such folder"),
        ("organisation/model", "BASE: organisation/model is no local folder and its config.json could not be had"),
        ("builtin:tiny-bp", 'BASE: no built-in base "tiny-bp"; did you mean "tiny-bpe"?'),
        ("rows", "BASE: "),
    ],
)
def test_a_base_that_cannot_be_read(
    base: str, message: str, here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    (here / "rows").mkdir()
    code, error = call(capsys, "new", base, "sums.jsonl")
    assert code == 1
    assert message in error
    assert error.count("\n") == 1


def test_few_rows_hold_out_what_titles_need_where_a_third_is_left_to_train_on():
    assert [held_out_of(rows) for rows in (200, 299, 300, 900, 2000, 50_000)] == [20, 29, 100, 100, 200, 1000]
