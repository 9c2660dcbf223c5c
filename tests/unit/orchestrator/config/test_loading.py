"""A config is checked whole, and each mistake is one line with the file and the key."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.errors import UserError
from orchestrator.config.comparison import differences
from orchestrator.config.loading import load_config
from orchestrator.record.run_directory import RunDirectory

MINIMAL: dict[str, Any] = {
    "name": "t",
    "data": {"source": "rows.jsonl", "prompt": "{instruction}", "completion": "{response}"},
    "lineages": [{"name": "l", "base": "./base"}],
    "rounds": 2,
    "budget": {"tokens": 1000},
    "competitors": [{"name": "a", "kind": "sft", "learning_rate": 1e-3}],
}


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "t.yaml"
    path.write_text(text)
    return path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    return write(tmp_path, yaml.safe_dump(MINIMAL))


def test_defaults_are_resolved_and_survive_a_round_trip(config: Path, tmp_path: Path):
    loaded = load_config(config)
    assert loaded.selection.confidence == 0.95
    assert load_config(write(tmp_path, loaded.to_yaml())) == loaded


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("roundz=3", 'unknown key "roundz"; did you mean "rounds"?'),
        ("budget.tokns=3", 'budget: unknown key "tokns"; did you mean "tokens"?'),
        ("competitors.a.learning_rat=1", 'competitors[a]: unknown key "learning_rat"; did you mean "learning_rate"?'),
        ("competitors.a.kind=stf", 'competitors[a]: unknown kind "stf"; did you mean "sft"?'),
        ("competitors.a.learning_rate=fast", "competitors[a].learning_rate: Input should be a valid number"),
        ("competitors.a.learning_rate=-1", "competitors[a].learning_rate: Input should be greater than 0"),
        ("competitors.a.schedule=cosin", 'competitors[a].schedule: unknown schedule "cosin"; did you mean "cosine"?'),
        ("competitors.a.optimizer=adamw", 'unknown optimizer "adamw"; did you mean "adamw_torch"?'),
        ("competitors.a.per_device_train_batch_size=4", 'did you mean "batch_size"?'),
        ("competitors.a.gradient_accumulation_steps=4", 'did you mean "gradient_accumulation"?'),
        ("competitors.a.lr_scheduler_type=cosine", 'did you mean "schedule"?'),
        ("competitors.a.warmup_ratio=0.1", 'did you mean "warmup"?'),
        ("competitors.a.adapter={method: lora, r: 8}", 'did you mean "rank"?'),
        ("competitors.a.adapter={method: lora, rank: 8, lora_alpha: 8}", 'did you mean "alpha"?'),
        ("num_train_epochs=3", 'did you mean "rounds"?'),
        ("competitors.a.optimizer=adam", 'unknown optimizer "adam"'),
        ("competitors.a.name=a/b", "competitors[a/b].name: String should match pattern"),
        ("competitors.a.adapter={method: lorra}", 'unknown method "lorra"; did you mean "lora"?'),
        ("rounds=0", "rounds: Input should be greater than or equal to 1"),
        ("rounds=two", "rounds: Input should be a valid integer"),
        ("budget={}", "budget: give total_tokens or total_gpu_hours, or at least one of tokens"),
        ("budget={tokens: 5, total_tokens: 10}", "budget: total_tokens is a whole budget: give it or tokens, not both"),
        ("lineages=[]", "lineages: List should have at least 1 item"),
        ("references=[{name: r}]", "references[r]: give either model or published"),
        ("competitors.a.name=champion", '"champion" is the name of a folder of ours'),
        ("competitors.a.name=verdict.json", '"verdict.json" is the name of a folder of ours'),
        (
            "references=[{name: a b, published: [1.0]}, {name: a/b, published: [1.0]}]",
            '"a b" and "a/b" would lie in one folder',
        ),
        (
            "lineages=[{name: l, base: org/my-model}, {name: m, base: org-my/model}]",
            'lineages[l].base and lineages[m].base: "org/my-model" and "org-my/model" would lie in one folder',
        ),
        ("references=[{name: .., model: m}]", "references[..].name: String should match pattern"),
        (f"references=[{{name: {'x' * 81}, model: m}}]", "name: String should have at most 80 characters"),
        (
            "references=[{name: p, published: [1.0, .nan]}]",
            "references[p].published[1]: Input should be a finite",
        ),
        ("limits.silence_minutes=.inf", "limits.silence_minutes: Input should be a finite number"),
        ("evolution={perturb: {adapter.rnak: [0.5]}}", 'no number "adapter.rnak" in an sft recipe; did you mean "ada'),
        ("evolution={perturb: {schedule: [0.5]}}", 'no number "schedule" in an sft recipe'),
        ("allocation.share=0.1", "allocation: goes with a whole budget: total_tokens or total_gpu_hours"),
        (
            "changes=[{from_round: 1, enter: [{name: champion, kind: unchanged}]}]",
            '[0].enter: "champion" is the',
        ),
        ("changes=[{from_round: 1, enter: [{name: a, kind: unchanged}]}]", 'changes[0].enter: the name "a" is taken'),
        ("cluster.storage=hdfs://bucket/runs", "give a folder that all nodes share, or one of s3://, gs://, az://"),
        ("cluster.prices={H10O: 3.5}", 'cluster.prices: there is no kind of device "H10O"; did you mean "H100"?'),
        ("cluster.prices={H100: 0}", "cluster.prices.H100: Input should be greater than 0"),
        ("cluster.prices={H100: -1}", "cluster.prices.H100: Input should be greater than 0"),
        ("cluster.prices={H100: .inf}", "cluster.prices.H100: Input should be a finite number"),
        ("limits.cost=0", "limits.cost: Input should be greater than 0"),
        ("limits.cost=10", "limits.cost: goes with cluster.prices, such as {H100: 3.5}"),
    ],
)
def test_mistakes_are_one_line(config: Path, override: str, message: str):
    with pytest.raises(UserError) as caught:
        load_config(config, [override])
    text = str(caught.value)
    assert text.startswith(f"{config}: ")
    assert message in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("rounds=1", "rounds: a whole budget needs at least 2"),
        ("selection.patience=2", "selection.patience: goes with equal rounds"),
        ("selection.seed=champion", "selection.seed: goes with equal rounds"),
        ("exploit={after: 1}", "exploit: goes with equal rounds"),
        ("evolution={}", "evolution: goes with equal rounds"),
        ("changes=[{from_round: 1, withdraw: a}]", "changes: a whole budget is shared out"),
    ],
)
def test_what_does_not_go_with_a_whole_budget_is_one_line(config: Path, override: str, message: str):
    with pytest.raises(UserError, match=message):
        load_config(config, ["budget={total_tokens: 1000}", override])
    if not override.startswith("changes"):
        assert load_config(config, ["budget={total_tokens: 1000}", "allocation.kind=equal", override])


@pytest.mark.parametrize(
    "override",
    ["evolution={}", "racing={at: [0.5]}", "exploit={after: 1}", "budget={total_tokens: 1000}"],
)
def test_what_nobody_would_heed_is_one_line(config: Path, override: str):
    nobody, key = "competitors=[{name: u, kind: unchanged}, {name: s, kind: soup}]", override.partition("=")[0]
    assert load_config(config, [nobody])
    for more in ([], ["allocation.kind=equal"] if key == "budget" else []):
        with pytest.raises(UserError, match=f"{key}: .*goes with .* there is none"):
            load_config(config, [nobody, override, *more])


SFT = MINIMAL["competitors"][0]
CHOOSES = "does not go with `repeats`: it would choose among the runs of a recipe by their losses"


def test_repeats_are_written_out_and_load_again_as_they_are(tmp_path: Path):
    loaded = load_config(write(tmp_path, yaml.safe_dump(MINIMAL | {"competitors": [SFT | {"repeats": 2}]})))
    assert [(recipe.name, recipe.repeat_of) for recipe in loaded.competitors] == [("a-1", "a"), ("a-2", "a")]
    assert load_config(write(tmp_path, loaded.to_yaml())) == loaded


@pytest.mark.parametrize(
    ("competitors", "more", "message"),
    [
        ([SFT | {"repeats": 2}, SFT], {}, '"a" names a recipe that is repeated, and a competitor'),
        ([SFT | {"repeats": 2}, SFT | {"name": "a-2"}], {}, 'competitors: two of them are named "a-2"'),
        ([SFT | {"repeat_of": "b"}, SFT | {"name": "c", "repeat_of": "b", "batch_size": 2}], {},
         "competitors[c].repeat_of: it is another recipe than a"),
        ([{"name": "u", "kind": "unchanged", "repeats": 2}], {},
         "competitors[u].repeats: kind unchanged trains nothing that a seed could change"),
        ([SFT, {"name": "s", "kind": "soup", "repeats": 2}], {},
         "competitors[s].repeats: kind soup trains nothing that a seed could change"),
        ([{"kind": "sft", "learning_rate": 1, "repeats": 2}], {}, "name: this key is required"),
        ([SFT | {"repeats": 2}], {"evolution": {}}, f"evolution: {CHOOSES}"),
        ([SFT | {"repeats": 2}], {"exploit": {"after": 1}}, f"exploit: {CHOOSES}"),
        ([SFT | {"repeats": 2}], {"racing": {"at": [0.5]}}, f"racing: {CHOOSES}"),
    ],
)  # fmt: skip
def test_repeats_that_make_no_sense_are_one_line(
    tmp_path: Path, competitors: list[dict[str, Any]], more: dict[str, Any], message: str
):
    with pytest.raises(UserError) as caught:
        load_config(write(tmp_path, yaml.safe_dump(MINIMAL | {"competitors": competitors} | more)))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_hours_are_not_spent_without_a_gpu(config: Path):
    with pytest.raises(UserError, match=r"competitors\[a\].resources.gpus: without any it spends no GPU hours"):
        load_config(config, ["budget={total_gpu_hours: 1}", "competitors.a.resources={gpus: 0}"])


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("tracking={uri: 'http://me:tops3cret@mlflow:5000'}", "tracking.uri"),
        ("tracking={uri: 'postgresql://me:tops3cret@db/mlflow'}", "tracking.uri"),
        ("data.source=[a.jsonl, 's3://id:tops3cret@bucket/b.jsonl']", "data.source[1]"),
        (
            "competitors.a={name: a, kind: command, run: x, environment: {HF_TOKEN: tops3cret}}",
            "competitors[a].environment.HF_TOKEN",
        ),
    ],
)
def test_what_logs_in_somewhere_is_refused_and_not_repeated(config: Path, override: str, key: str):
    with pytest.raises(UserError) as refused:
        load_config(config, [override])
    assert str(refused.value).startswith(f"{config}: {key}: holds a password or the like, and the config is on record")
    assert "tops3cret" not in str(refused.value)


def test_an_environment_without_credentials_is_none_of_them(config: Path):
    given = "competitors.a={name: a, kind: command, run: x, environment: {TOKENIZERS_PARALLELISM: 'false', KEYS: 3}}"
    load_config(config, [given])


def test_a_missing_key_is_named(tmp_path: Path):
    path = write(tmp_path, yaml.safe_dump({k: v for k, v in MINIMAL.items() if k != "budget"}))
    with pytest.raises(UserError, match=r"budget: this key is required$"):
        load_config(path)


def test_two_of_one_name_are_refused(tmp_path: Path):
    twice = MINIMAL | {"competitors": MINIMAL["competitors"] * 2}
    with pytest.raises(UserError, match='competitors: two of them are named "a"'):
        load_config(write(tmp_path, yaml.safe_dump(twice)))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["selection.metric=rouge"], 'there is no figure and no task "rouge"; did you mean "rouge_l"?'),
        (["selection.metric=rouge_l"], "selection.metric: rouge_l is measured where evaluation.written_rows is not 0"),
        (["selection.metric=perplexity"], "selection.metric: perplexity says what the loss says: name that"),
        (["selection.metric=token_accuracy", "selection.margin_nats=0.1"],
         "selection.margin_nats: goes with the loss, and token_accuracy chooses"),
        (["selection.guardrails=[{metric: exact_match}]"],
         "selection.guardrails[0].metric: exact_match is measured where evaluation.written_rows is not 0"),
        (["evaluation.harness=[{task: loss}]"], 'evaluation.harness: the name "loss" is taken'),
        (["evaluation.harness=[{task: arc}, {task: arc}]"], 'evaluation.harness: the name "arc" is taken'),
        (["evaluation.harness=[{task: ../a}]"], "evaluation.harness[0].task: String should match pattern"),
        (["evaluation.harness=[{task: a, documents: 3}]"], "Input should be greater than or equal to 4"),
    ],
)  # fmt: skip
def test_what_chooses_has_to_be_measured(config: Path, overrides: list[str], message: str):
    with pytest.raises(UserError, match=re.escape(message)):
        load_config(config, overrides)


def test_a_task_of_the_harness_may_choose(config: Path):
    overrides = ["evaluation.harness=[{task: arc_easy}]", "selection.metric=arc_easy", "evaluation.written_rows=9"]
    loaded = load_config(config, [*overrides, "selection.guardrails=[{metric: exact_match, max_drop: 0.02}]"])
    assert (loaded.selection.metric, loaded.selection.guardrails[0].max_drop) == ("arc_easy", 0.02)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", "not valid YAML"),
        ("- a\n- b\n", "holds no mapping"),
        ("", "holds no mapping"),
        ("name: a\nname: b\n", 'the key "name" stands twice'),
    ],
)
def test_broken_yaml_is_one_line(tmp_path: Path, text: str, message: str):
    with pytest.raises(UserError, match=message) as caught:
        load_config(write(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path: Path):
    with pytest.raises(UserError, match=r"absent\.yaml: cannot be read"):
        load_config(tmp_path / "absent.yaml")


def test_overrides_reach_list_items_by_name_and_number(config: Path):
    loaded = load_config(config, ["competitors.a.adapter.method=lora", "competitors.0.adapter.rank=4", "seed=5"])
    assert loaded.competitors[0].adapter.rank == 4
    assert loaded.seed == 5


@pytest.mark.parametrize(
    "override", ["rounds", "competitors.zz.learning_rate=1", "rounds.x=1", "rounds=[1", "name=a: b: c"]
)
def test_a_bad_override_is_named(config: Path, override: str):
    with pytest.raises(UserError, match="--set") as caught:
        load_config(config, [override])
    assert "\n" not in str(caught.value)


def test_differences_name_the_key_and_leave_out_where_it_runs(config: Path):
    ours = load_config(config)
    assert differences(ours, load_config(config, ["cluster.address=auto", "tracking.uri=http://x"])) == []
    found = differences(ours, load_config(config, ["competitors.a.learning_rate=0.5"]))
    assert found == ["competitors.a.learning_rate: 0.001 is 0.5 there"]


def test_adapter_none_is_a_full_fine_tune_and_e_notation_is_a_number(config: Path):
    loaded = load_config(config, ["competitors.a.adapter=none", "competitors.a.learning_rate=1e-4"])
    assert loaded.competitors[0].adapter is None
    assert loaded.competitors[0].learning_rate == 1e-4


def test_numbers_are_numbers_in_sections_without_types_too(tmp_path: Path):
    text = yaml.safe_dump({**MINIMAL, "competitors": None}).replace(
        "competitors: null",
        "competitors: [{name: a, kind: sft, learning_rate: 1e-3, schedule: cosine_with_min_lr,"
        " schedule_args: {min_lr: 1e-6, high: -2.5E+3, word: e-3}}]",
    )
    loaded = load_config(write(tmp_path, text))
    given = {"min_lr": 1e-6, "high": -2500.0, "word": "e-3"}
    assert loaded.competitors[0].schedule_args == given
    assert load_config(write(tmp_path, loaded.to_yaml())) == loaded
    directory = RunDirectory(tmp_path / "run")
    directory.adopt(loaded)
    assert directory.config == loaded
    assert (
        load_config(tmp_path / "t.yaml", ["competitors.a.schedule_args.min_lr=1e-7"])
        .competitors[0]
        .schedule_args["min_lr"]
        == 1e-7
    )


def test_a_run_that_began_with_what_is_refused_now_can_be_read(tmp_path: Path):
    directory = RunDirectory(tmp_path / "run")
    directory.adopt(load_config(write(tmp_path, yaml.safe_dump(MINIMAL))))
    raw = yaml.safe_load(directory.config_file.read_text()) | {"allocation": {"share": 0.1}}
    directory.config_file.write_text(yaml.safe_dump(raw))
    assert directory.config.allocation.share == 0.1
    with pytest.raises(UserError, match="allocation: goes with a whole budget"):
        load_config(write(tmp_path, yaml.safe_dump({**MINIMAL, "allocation": {"share": 0.1}})))
