"""A user's mistake exits 1 with one line that names the file, the key or the row; no traceback, nothing lost."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import LimitReached, UserError
from cluster.machine import Machine
from orchestrator import cli
from tests.tiny import tiny_model, tiny_rows, write_jsonl

WITHOUT_GPU = Machine(memory_gb=16, gpus=0, cpus=2)
Edit = Callable[[Path, dict[str, Any]], str | None]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture
def config(tmp_path: Path, base: Path) -> dict[str, Any]:
    write_jsonl(tmp_path / "rows.jsonl", tiny_rows(50))
    return {
        "name": "t",
        "data": {
            "source": "rows.jsonl",
            "prompt": "{instruction}",
            "completion": "{response}",
            "validation": 5,
            "test": 5,
        },
        "lineages": [{"name": "l", "base": str(base)}],
        "rounds": 1,
        "budget": {"steps": 1},
        "competitors": [{"name": "a", "kind": "sft", "learning_rate": 1e-3}],
    }


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit code and standard error of `tournament ARGUMENTS`, in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tournament", *arguments])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    assert isinstance(exit_.value.code, int)
    return exit_.value.code, capsys.readouterr().err


def no_weights(folder: Path, config: dict[str, Any]) -> None:
    (folder / "empty").mkdir()
    (folder / "empty" / "config.json").write_text("{}")
    config["lineages"][0]["base"] = "empty"


def no_tokenizer(folder: Path, config: dict[str, Any]) -> None:
    no_weights(folder, config)
    (folder / "empty" / "model.safetensors").write_bytes(b"")


def damaged(name: str, content: str | int, as_reference: bool = False) -> Callable[[Path, dict[str, Any]], None]:
    """The base, or a reference that chats, with another content of a file, or only its first bytes."""

    def edit(folder: Path, config: dict[str, Any]) -> None:
        model = shutil.copytree(config["lineages"][0]["base"], folder / "model")
        file = model / name
        file.write_bytes(file.read_bytes()[:content] if isinstance(content, int) else content.encode())
        if as_reference:
            config["references"] = [{"name": "r", "model": "model", "prompt": "chat"}]
        else:
            config["lineages"][0]["base"] = "model"

    return edit


def chat_without_a_template(folder: Path, config: dict[str, Any]) -> None:
    config["references"] = [{"name": "r", "model": config["lineages"][0]["base"], "prompt": "chat"}]


def broken_line(folder: Path, config: dict[str, Any]) -> None:
    with (folder / "rows.jsonl").open("a") as stream:
        stream.write('{"instruction": "what\n')


def no_rows(folder: Path, config: dict[str, Any]) -> None:
    (folder / "rows.jsonl").write_text("")


def put(*keys: Any, value: Any) -> Callable[[Path, dict[str, Any]], None]:
    def edit(folder: Path, config: dict[str, Any]) -> None:
        node: Any = config
        for key in keys[:-1]:
            node = node[key]
        node[keys[-1]] = value

    return edit


def whole_budget(equal: bool = False, **budget: float) -> Callable[[Path, dict[str, Any]], None]:
    def edit(folder: Path, config: dict[str, Any]) -> None:
        field = [config["competitors"][0] | {"name": name} for name in "ab"]
        config |= {"rounds": 2, "budget": budget, "competitors": field}
        config["allocation"] = {"kind": "equal" if equal else "race"}

    return edit


def clone(folder: Path, config: dict[str, Any]) -> None:
    config["competitors"] *= 2


def auto(base_config: str | None) -> Callable[[Path, dict[str, Any]], None]:
    """`competitors: auto` on a base whose config.json holds this."""

    def edit(folder: Path, config: dict[str, Any]) -> None:
        (folder / "odd").mkdir()
        if base_config is not None:
            (folder / "odd" / "config.json").write_text(base_config)
        config["lineages"][0]["base"] = "odd"
        config["competitors"] = "auto"

    return edit


def auto_of_the_hub(folder: Path, config: dict[str, Any]) -> None:
    config["lineages"][0]["base"] = "organisation/model"
    config["competitors"] = "auto"


def auto_without_data(folder: Path, config: dict[str, Any]) -> None:
    config["data"]["source"] = "absent.jsonl"
    config["competitors"] = "auto"


CASES: dict[str, tuple[Callable[[Path, dict[str, Any]], None], str]] = {
    "an unknown key": (put("rouns", value=3), 'unknown key "rouns"; did you mean "rounds"?'),
    "a wrong type": (put("rounds", value="many"), "rounds: Input should be a valid integer"),
    "a column that is not in the data": (put("data", "completion", value="{answer}"), "answer"),
    "a template naming a missing column": (put("data", "prompt", value="{question}: {instruction}"), "question"),
    "a template that is broken": (put("data", "prompt", value="{instruction"), "data.prompt"),
    "an empty data set": (no_rows, "rows.jsonl"),
    "fewer rows than are held out": (put("data", "validation", value=48), "data.validation"),
    "a source that is not there": (put("data", "source", value="absent.jsonl"), "absent.jsonl"),
    "an unknown built-in data set": (put("data", "source", value="builtin:quickstar"), "quickstart"),
    "a data set of the hub, offline": (put("data", "source", value="hf://org/name"), "hf://org/name"),
    "a base without weights": (no_weights, "lineages[l].base: "),
    "a base without a tokenizer": (no_tokenizer, "has no tokenizer"),
    "a base that is not there": (put("lineages", 0, "base", value="./absent"), "./absent: there is no such folder"),
    "an unknown built-in base": (put("lineages", 0, "base", value="builtin:tiny-bp"), 'did you mean "tiny-bpe"?'),
    "a base of Git LFS": (
        damaged("model.safetensors", "version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n"),
        "model/model.safetensors: cannot be read: it is a pointer of Git LFS, not the file: git lfs pull",
    ),
    "a base whose weights are cut off": (damaged("model.safetensors", 200), "model.safetensors: cannot be read: "),
    "a base that lacks some values": (
        damaged("model.safetensors", 5000),
        "model.safetensors: cannot be read: it is cut",
    ),
    "a base whose config is cut off": (damaged("config.json", 50), "lineages[l].base: "),
    "a base whose config is a list": (damaged("config.json", "[]"), "config.json: cannot be read: it holds no keys"),
    "a base whose config says no sizes": (
        damaged("config.json", '{"text_config": null, "num_hidden_layers": "two"}'),
        "model/config.json: cannot be read: invalid literal",
    ),
    "a base whose tokenizer is damaged": (damaged("tokenizer.json", "{}"), "model/tokenizer.json: cannot be read: "),
    "a reference whose template is damaged": (
        damaged("chat_template.jinja", "{% if %}", as_reference=True),
        "references[r].model: ",
    ),
    "a reference that chats without a template": (
        chat_without_a_template,
        "has no chat template (prompt: plain does without)",
    ),
    "two competitors of one name": (clone, 'competitors: two of them are named "a"'),
    "a broken line of JSON": (broken_line, "rows.jsonl, line 51"),
    "a base of the hub, offline": (
        put("lineages", 0, "base", value="organisation/model"),
        "organisation/model is no local folder and could not be had from the Hugging Face hub",
    ),
    "an entrypoint that does not import": (
        put("competitors", 0, value={"name": "p", "kind": "python", "entrypoint": "nowhere:run"}),
        "competitors[p].entrypoint nowhere:run does not import, also not from ",
    ),
    "a tracking URI that MLflow does not know": (
        put("tracking", value={"uri": "foo://bar"}),
        "tracking.uri: MLflow knows no foo://; known are databricks, ",
    ),
    "no list of competitors": (put("competitors", value="aut"), "competitors: Input should be a valid list (got aut)"),
    "auto for a base without config.json": (auto(None), "lineages[l].base: odd has no config.json, so no field"),
    "auto for a base that is damaged": (auto("{"), "odd/config.json: cannot be read: "),
    "auto for a base that says little": (auto("{}"), "odd has no config.json that says its layers, heads, width"),
    "auto for a base of the hub, offline": (
        auto_of_the_hub,
        "organisation/model is no local folder and its config.json",
    ),
    "auto on a source that is not there": (auto_without_data, "absent.jsonl"),
    "a search outside of the recipe's keys": (
        put("competitors", 0, value={"name": "p", "kind": "search", "space": {"learning_rat": [1e-3]}}),
        'competitors[p]: space: unknown key "learning_rat"; did you mean "learning_rate"?',
    ),
    "a search of values that no recipe has": (
        put("competitors", 0, value={"name": "p", "kind": "search", "space": {"learning_rate": [1e-3, -1]}}),
        "competitors[p]: space.learning_rate: -1 does not fit: Input should be greater than 0",
    ),
    "a search range upside down": (
        put("competitors", 0, value={"name": "p", "kind": "search", "space": {"warmup": {"low": 1, "high": 0}}}),
        "competitors[p].space.warmup: low (1) has to be below high (0)",
    ),
    "a command that is not found": (
        put("competitors", 0, value={"name": "p", "kind": "command", "run": "trainn", "sandbox": "none"}),
        "competitors[p].run: trainn: command not found",
    ),
    "a whole budget that is too small": (
        whole_budget(total_tokens=100),
        "budget.total_tokens: 100 are too few for 2 competitors",
    ),
    "a whole budget of less than a step in equal rounds": (
        whole_budget(equal=True, total_tokens=100),
        "budget.total_tokens: 100 are too few for 4 entries in 2 equal rounds, which need a step each: give at least",
    ),
    "GPU hours without a GPU": (whole_budget(total_gpu_hours=1), "budget.total_gpu_hours: there is no GPU here"),
    "a command in no folder": (
        put("competitors", 0, value={"name": "p", "kind": "command", "run": "sh", "folder": "nowhere"}),
        "competitors[p].folder: ",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_mistake_is_one_line(
    name: str, tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: Any
):
    # The libraries read HF_HUB_OFFLINE when they are imported, which they are by now.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("orchestrator.driver._run_rounds", None)  # it is found before
    monkeypatch.setattr("orchestrator.planning.place.machine_here", lambda: WITHOUT_GPU)
    monkeypatch.setattr("orchestrator.driver.machine_here", lambda: WITHOUT_GPU)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    edit, message = CASES[name]
    edit(tmp_path, config)
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(config))
    code, error = call(capsys, "run", str(path), "--run-dir", str(tmp_path / "run"))
    assert code == 1
    assert error.startswith("error: ")
    assert str(path) in error
    assert message in error
    assert error.count("\n") == 1
    # Nothing is in the way of the mended config.
    assert not (tmp_path / "run" / "tournament.yaml").exists()
    if "budget" in message:
        assert call(capsys, "plan", str(path)) == (1, error)


def test_the_total_that_is_named_is_enough_for_a_step_in_equal_rounds(tmp_path: Path, config: dict[str, Any]):
    from orchestrator.config.loading import load_config
    from orchestrator.planning.plan import make_plan

    path = tmp_path / "t.yaml"

    def planned(total: int) -> None:
        whole_budget(equal=True, total_tokens=total)(tmp_path, config)
        path.write_text(yaml.safe_dump(config))
        make_plan(load_config(path), path, None, Path("1xH100"))

    with pytest.raises(UserError, match="give at least") as refused:
        planned(100)
    planned(int(str(refused.value).rpartition(" ")[2].replace(",", "")))


def test_a_run_directory_of_another_config(tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    from orchestrator.config.loading import load_config
    from orchestrator.record.run_directory import RunDirectory

    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(config))
    RunDirectory(tmp_path / "run").adopt(load_config(path))
    path.write_text(yaml.safe_dump(config | {"rounds": 4}))
    before = (tmp_path / "run" / "tournament.yaml").read_text()
    code, error = call(capsys, "run", str(path), "--run-dir", str(tmp_path / "run"))
    assert code == 1
    assert "belongs to another config: rounds: 4 is 1 there" in error
    assert (tmp_path / "run" / "tournament.yaml").read_text() == before


def test_a_limit_that_is_reached_is_the_users_to_raise(  # whoever tries again after a 3 would do so for nothing
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    def reached(*_: Any) -> None:
        raise LimitReached("limits.cost: 9.90 of 10.00 is spent: raise it to go on")

    monkeypatch.setattr("orchestrator.driver.run_tournament", reached)
    file = tmp_path / "t.yaml"
    file.write_text(yaml.safe_dump(config))
    code, said = call(capsys, "run", str(file), "--run-dir", str(tmp_path / "run"))
    assert code == 1
    assert said == "error: limits.cost: 9.90 of 10.00 is spent: raise it to go on\n"


def test_a_folder_that_holds_something_else(tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]):
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(config))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.tex").write_text("mine")
    code, error = call(capsys, "run", str(path), "--run-dir", str(tmp_path / "run"))
    assert code == 1
    assert "is not empty and no run directory" in error
    assert (tmp_path / "run" / "thesis.tex").read_text() == "mine"


def test_a_run_directory_that_cannot_be_written(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(config))
    (tmp_path / "file").write_text("")  # below a file nobody can write, not even root
    code, error = call(capsys, "run", str(path), "--run-dir", str(tmp_path / "file" / "run"))
    assert code == 1
    assert f"--run-dir {tmp_path / 'file' / 'run'}: cannot be written" in error
    assert error.count("\n") == 1
    for where in (tmp_path / "file", Path("/proc/x")):
        code, error = call(capsys, "run", str(path), "--run-dir", str(where))
        assert (code, error.count("\n")) == (1, 1)
        assert f"--run-dir {where}: cannot be written" in error


def test_a_run_directory_that_another_driver_holds(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    from orchestrator.record.run_directory import RunDirectory

    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(config))
    with RunDirectory(tmp_path / "run").locked():
        code, error = call(capsys, "run", str(path), "--run-dir", str(tmp_path / "run"))
    assert code == 1
    assert "another driver is running this tournament now" in error


@pytest.mark.parametrize("command", ["status", "leaderboard", "report", "ui"])
def test_a_folder_that_is_no_run(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code, error = call(capsys, command, str(tmp_path))
    assert code == 1
    assert "is no run directory" in error


@pytest.mark.parametrize("command", ["status", "leaderboard", "report"])
def test_a_record_that_cannot_be_opened(
    command: str, tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    from orchestrator.config.loading import load_config
    from orchestrator.record.run_directory import RunDirectory

    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(config))
    run = RunDirectory(tmp_path / "run")
    run.adopt(load_config(path))
    run.environment_file.mkdir()  # nobody can read this as a file, not even root
    code, error = call(capsys, command, str(run.root))
    assert (code, error) == (1, f"error: {run.environment_file}: Is a directory\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "--nonsense"], "error: No such option"),
        (["validate"], 'error: there is no command "validate"; did you mean "plan"?\n'),
        (["leaderbord"], 'error: there is no command "leaderbord"; did you mean "leaderboard"?\n'),
        (["extend", "x", "--rounds", "0"], "--rounds"),
        (["status", "nope"], "nope: there is no such folder\n"),
    ],
)
def test_a_wrong_call(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]):
    code, error = call(capsys, *arguments)
    assert code == 1
    assert message in error
    assert "Traceback" not in error


def test_the_bare_command_and_its_version(capsys: pytest.CaptureFixture[str]):
    assert call(capsys) == (1, "")
    assert call(capsys, "--version") == (0, "")


@pytest.mark.parametrize("address", ["nonsense", "127.0.0.1:1", "nowhere.invalid:6379"])
def test_a_cluster_that_does_not_answer_is_one_line_before_anything_is_made(
    address: str, tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(config))
    code, error = call(capsys, "run", str(path), "--run-dir", str(tmp_path / "run"), "--address", address)
    assert code == 1
    assert address in error
    assert error.count("\n") == 1
    assert [file.name for file in (tmp_path / "run").iterdir()] == [".lock"]


def test_hub_names_are_planned_and_said_to_be_unchecked(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str]
):
    config["lineages"][0]["base"] = "organisation/model"
    config["data"]["source"] = "hf://organisation/data"
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(config))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["tournament", "plan", str(path), "--json"])
        with pytest.raises(SystemExit) as exit_:
            cli.main()
    assert exit_.value.code == 0
    plan = json.loads(capsys.readouterr().out)
    assert any("organisation/model is not on this machine" in line for line in plan["unchecked"])
    assert any("hf://organisation/data is not on this machine" in line for line in plan["unchecked"])


def test_a_ray_job_needs_an_absolute_run_directory(
    tmp_path: Path, config: dict[str, Any], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "t.yaml"
    path.write_text(yaml.safe_dump(config))
    monkeypatch.setenv("RAY_JOB_CONFIG_JSON_ENV_VAR", "{}")
    code, error = call(capsys, "run", str(path))
    assert code == 1
    assert "--run-dir runs/t: in a Ray job this would be a temporary folder" in error
