"""What people enter, withdraw and extend while a tournament runs, and the commands for it."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.errors import UserError
from orchestrator.cli import app
from orchestrator.config.loading import load_entries
from orchestrator.field.changes import Change
from orchestrator.record.changes import current, enter, extend, withdraw
from orchestrator.record.records import Verdict
from orchestrator.record.run_directory import RunDirectory
from tests.faked import FakedWorkers, faked_config, play
from tests.unit.orchestrator.field.test_next_round import config, entry, first, following, names


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run whose lineage has begun round 1."""
    directory = RunDirectory(tmp_path / "run")
    directory.adopt(config())
    first(config()).write(directory.round("l", 1) / "roster.json")
    return directory


def load(run: RunDirectory, tmp_path: Path, text: str) -> list[Any]:
    path = tmp_path / "entry.yaml"
    path.write_text(text)
    return load_entries(path, current(run.config, run))


def test_entered_and_withdrawn_count_from_the_next_round_and_are_on_record(run: RunDirectory, tmp_path: Path):
    recipes = load(run, tmp_path, "{name: hot, like: a, learning_rate: {each: [0.01, 0.02]}}")
    assert enter(run, recipes).from_round == 2
    assert withdraw(run, "d").from_round == 2
    assert set(current(run.config, run)) == {"a", "b", "c", "own", "control", "hot-0.01", "hot-0.02"}
    changed = run.with_changes(config())
    assert run.config.changes == changed.changes
    begun = run.roster("l", 1)
    assert begun is not None
    assert names(begun) == ["a", "b", "c", "d", "own", "control"]
    second = following(changed, begun, ["a", "b", "c", "d"])
    assert names(second) == ["a", "b", "c", "own", "control", "hot-0.01", "hot-0.02"]
    assert second.reasons == ["hot-0.01 was entered.", "hot-0.02 was entered.", "d was withdrawn."]
    assert entry(second, "hot-0.01").recipe.batch_size == 8
    # The same config still goes on with this run; the run's own config repeats it elsewhere.
    run.check(config())
    RunDirectory(tmp_path / "other").check(run.config)
    with pytest.raises(UserError, match="changes: are others there"):
        run.check(config(changes=[Change(from_round=1, withdraw="b").model_dump()]))


def test_what_the_config_does_not_allow_is_not_put_on_record(tmp_path: Path):
    directory = RunDirectory(tmp_path / "run")
    directory.adopt(config(evolution={}))
    recipes = load(directory, tmp_path, "{name: hot, like: a, repeats: 2}")
    with pytest.raises(UserError, match="evolution: does not go with `repeats`"):
        enter(directory, recipes)
    assert directory.config.changes == []


def test_rounds_are_added_and_the_schedule_knows_from_when_on(run: RunDirectory):
    extend(run, 2)
    changed = run.config
    assert (changed.rounds, changed.all_rounds) == (4, 6)
    assert (changed.rounds_as_of(1), changed.rounds_as_of(2)) == (4, 6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{name: a, kind: sft, learning_rate: 1}", "competitors[a].name: the name is taken"),
        ("{name: z, like: aa}", 'competitors[z].like: no competitor "aa"; did you mean "a"?'),
        ("{name: z, kind: stf}", 'unknown kind "stf"; did you mean "sft"?'),
        ("{name: z, kind: sft, learning_rate: 1, rnk: 3}", 'unknown key "rnk"'),
        ("{name: z, kind: python, entrypoint: 'nowhere:f'}", "entrypoint nowhere:f does not import"),
        ("{name: seed, like: a}", "this is the name of a folder of ours"),
        ("just text", "holds neither a competitor nor a list of them"),
        ("[]", "holds neither a competitor nor a list of them"),
        ("{name: [", "not valid YAML"),
    ],
)
def test_an_entry_that_is_wrong_is_one_line_and_changes_nothing(
    run: RunDirectory, tmp_path: Path, text: str, message: str
):
    with pytest.raises(UserError) as error:
        load(run, tmp_path, text)
    assert message in str(error.value)
    assert str(tmp_path / "entry.yaml") in str(error.value)
    assert "\n" not in str(error.value)
    assert run.config.changes == []


def test_what_cannot_be_withdrawn_or_come_back(run: RunDirectory, tmp_path: Path):
    with pytest.raises(UserError, match='no competitor "aa" competes there; did you mean "a"'):
        withdraw(run, "aa")
    withdraw(run, "b")
    with pytest.raises(UserError, match='no competitor "b" competes there'):
        withdraw(run, "b")
    with pytest.raises(UserError, match="has or had one of this name already"):
        enter(run, load(run, tmp_path, "{name: b, like: a}"))
    for name in ("a", "c", "d", "own"):
        withdraw(run, name)
    with pytest.raises(UserError, match="control is its only competitor"):
        withdraw(run, "control")
    for number in (2, 3, 4):
        (run.round("l", number)).mkdir(parents=True)
        (run.round("l", number) / "roster.json").write_text((run.round("l", 1) / "roster.json").read_text())
    with pytest.raises(UserError, match="its last round has begun; add rounds first"):
        enter(run, load(run, tmp_path, "{name: z, like: a}"))


def test_the_commands_say_from_when_a_change_counts(run: RunDirectory, tmp_path: Path):
    (tmp_path / "entry.yaml").write_text("- {name: z, like: a}")

    def call(*arguments: str) -> str:
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 0, result.output
        return result.output

    assert "z: enters in round 2" in call("enter", str(run.root), str(tmp_path / "entry.yaml"))
    assert "a: is out from round 2 on" in call("withdraw", str(run.root), "a")
    assert "5 rounds now; go on with the command that started it" in call("extend", str(run.root), "--rounds", "1")
    assert [c.from_round for c in run.config.changes] == [2, 2, 2]
    missing = CliRunner().invoke(app, ["withdraw", str(tmp_path / "nowhere"), "a"])
    assert isinstance(missing.exception, UserError)


def test_what_patience_has_ended_is_not_extended(tmp_path: Path):
    (tmp_path / "in").mkdir()
    config = faked_config(tmp_path / "in", rounds=4, selection={"patience": 1})
    run = play(config, tmp_path / "run", FakedWorkers(lambda name, number: 3.5 if number > 1 else 4.0 - number)).run
    for change in (lambda: extend(run, 2), lambda: withdraw(run, "a")):
        with pytest.raises(UserError, match=r"all its lineages have ended \(selection.patience: 1\)"):
            change()


def two_lineages(inputs: Path, **settings: Any) -> Any:
    faked_config(inputs)
    return faked_config(inputs, lineages=[{"name": name, "base": str(inputs / "base")} for name in "lm"], **settings)


def test_a_change_counts_from_where_no_lineage_has_begun(run: RunDirectory, tmp_path: Path):
    (tmp_path / "in").mkdir()
    other = RunDirectory(tmp_path / "other")
    other.adopt(two_lineages(tmp_path / "in", rounds=4))
    for lineage, begun in (("l", 1), ("m", 2)):
        for number in range(1, begun + 1):
            first(config(), lineage).write(other.round(lineage, number) / "roster.json")
    assert withdraw(other, "d").from_round == 3


def test_where_one_lineage_goes_on_there_is_something_to_change(tmp_path: Path):
    (tmp_path / "in").mkdir()
    config = two_lineages(tmp_path / "in", selection={"patience": 1})
    run = play(config, tmp_path / "run", FakedWorkers(lambda name, number: 4.0 + number)).run
    file = run.round("m", 1) / "verdict.json"
    verdict = run.read(Verdict, file)
    assert verdict is not None
    run.write(verdict.model_copy(update={"ends_lineage": False}), file)
    assert extend(run, 2).extend == 2
