"""Who enters a round: evolution, exploitation, and what people enter and withdraw."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cluster.errors import UserError
from competitors.soup.recipe import SoupRecipe
from orchestrator.cli import app
from orchestrator.config import Change, TournamentConfig
from orchestrator.field.entering import load_entries
from orchestrator.field.evolution import child_name
from orchestrator.field.exploit import decide
from orchestrator.field.field import current, enter, extend, next_roster, read_roster, withdraw
from orchestrator.record.records import Roster
from orchestrator.record.run_directory import RunDirectory
from orchestrator.rounds.racing import is_out
from orchestrator.rounds.verdict import Standing, Verdict

COMPETITORS: list[dict[str, Any]] = [
    {"name": "a", "kind": "sft", "learning_rate": 1e-3, "batch_size": 8},
    {"name": "b", "kind": "sft", "learning_rate": 2e-3, "adapter": {"method": "lora", "rank": 8}},
    {"name": "c", "kind": "sft", "learning_rate": 4e-3},
    {"name": "d", "kind": "sft", "learning_rate": 8e-3},
    {"name": "own", "kind": "python", "entrypoint": "m:f"},
    {"name": "control", "kind": "unchanged"},
]


def config(**settings: Any) -> TournamentConfig:
    return TournamentConfig.model_validate(
        {
            "name": "t",
            "data": {"source": "rows.jsonl", "prompt": "{p}", "completion": "{c}"},
            "lineages": [{"name": "l", "base": "./base"}],
            "rounds": 4,
            "budget": {"tokens": 1000},
            "competitors": COMPETITORS,
        }
        | settings
    )


def verdict(number: int, ranking: list[str], exploits: str | None = None) -> Verdict:
    standings = [
        Standing(competitor=name, validation_loss=1.0 + place, improvement=0.1, improvement_low=0.0)
        for place, name in enumerate(ranking)
    ]
    return Verdict(
        lineage="l", round=number, winner=ranking[0], winner_proven=True, seed_before="base", seed_next="base",
        champion_before="base", champion="base", dethroned=False, validation_loss=1.0, seed_validation_loss=1.0,
        entries=standings, rounds_without_champion=1, ends_lineage=False, exploits=exploits, reasons=[],
    )  # fmt: skip


def names(roster: Roster) -> list[str]:
    return [entry.recipe.name for entry in roster.entries]


def entry(roster: Roster, name: str) -> Any:
    return next(entry for entry in roster.entries if entry.recipe.name == name)


def test_without_anything_the_field_stays():
    first = next_roster(config(), "l", 1, None, None)
    second = next_roster(config(), "l", 2, first, verdict(1, ["a", "b", "c", "d", "own"]))
    assert names(first) == names(second) == ["a", "b", "c", "d", "own", "control"]
    assert second.reasons == []


def test_evolution_replaces_the_worst_share_by_copies_of_the_best():
    rules = {"replace": 0.5, "perturb": {"learning_rate": [0.5], "batch_size": [2.0], "adapter.rank": [2.0]}}
    settings = config(evolution=rules)
    first = next_roster(settings, "l", 1, None, None)
    second = next_roster(settings, "l", 2, first, verdict(1, ["own", "a", "control", "b", "d"]))  # c forfeited
    assert names(second) == ["a", "b", "a.2b", "a.2a", "own", "control"]
    child = entry(second, "a.2a")
    assert (child.recipe.learning_rate, child.recipe.batch_size, child.recipe.adapter) == (5e-4, 16, None)
    assert child.origins == {"learning_rate": "0.001 of a × 0.5", "batch_size": "8 of a × 2"}
    assert (child.made_by, child.parent, child.since) == ("evolution", "a", 2)
    assert "takes the place of d: a copy of a with learning_rate 0.0005 (0.001 of a × 0.5)" in second.reasons[0]
    assert Roster.model_validate_json(second.model_dump_json()) == second


def test_evolution_repeats_with_the_seed_and_differs_between_lineages_and_rounds():
    settings = config(evolution={"perturb": {"learning_rate": [0.5 + i / 100 for i in range(100)]}})
    first = next_roster(settings, "l", 1, None, None)
    ranking = verdict(1, ["a", "b", "c", "d"])

    def rate(lineage: str, number: int, seed: int = 0) -> float:
        changed = settings.model_copy(update={"seed": seed})
        made = next_roster(changed, lineage, number, first, ranking).entries[3].recipe
        return float(made.learning_rate)

    assert rate("l", 2) == rate("l", 2)
    assert len({rate("l", 2), rate("m", 2), rate("l", 3), rate("l", 2, seed=1)}) > 1


def test_children_are_no_twins_while_there_is_another_choice():
    settings = config(evolution={"replace": 0.75, "perturb": {"learning_rate": [0.5, 2, 4]}})
    first = next_roster(settings, "l", 1, None, None)
    second = next_roster(settings, "l", 2, first, verdict(1, ["a", "b", "c", "d"]))
    rates = sorted(e.recipe.learning_rate for e in second.entries if e.made_by == "evolution")
    assert rates == [5e-4, 2e-3, 4e-3]


def test_a_value_that_the_recipe_would_refuse_stays_the_parents():
    settings = config(
        evolution={"perturb": {"warmup": [2.0]}},
        competitors=[COMPETITORS[0] | {"warmup": 0.6}, COMPETITORS[2]],
    )
    second = next_roster(settings, "l", 2, next_roster(settings, "l", 1, None, None), verdict(1, ["a", "c"]))
    child = entry(second, "a.2a")
    assert child.recipe.warmup == 0.6
    assert child.origins == {}


def test_children_are_named_after_their_oldest_ancestor():
    assert child_name("full.2b", 3, 0, set()) == "full.3a"
    assert child_name("full", 3, 0, {"full.3a"}) == "full.3b"
    assert child_name("full", 3, 26, set()) == "full.3aa"


def test_a_recipe_that_won_often_enough_takes_all_places():
    rules = {"after": 2}
    settings = config(exploit=rules)
    assert settings.exploit is not None
    first = next_roster(settings, "l", 1, None, None)
    rankings = [["a", "b", "c", "own"], ["b", "a", "own"]]
    assert decide(settings.exploit, first, ["a", "b"], rankings, separated=False) is None
    decided = decide(settings.exploit, first, ["a", "b", "a"], [*rankings, ["a", "b"]], separated=False)
    assert decided == ("a", "a has won 2 rounds")
    second = next_roster(settings, "l", 4, first, verdict(3, ["a", "b"], exploits="a"))
    assert names(second) == ["a", "a.4a", "a.4b", "a.4c", "a.4d", "control", "soup"]
    rates = [entry(second, name).recipe.learning_rate for name in names(second)[:5]]
    assert rates == [1e-3, 8e-4, 1.25e-3, 1e-3, 8e-4]
    assert second.phase == "exploit"
    # The field of an exploiting round stays, also with evolution on.
    both = config(exploit=rules, evolution={})
    third = next_roster(both, "l", 5, second, verdict(4, ["soup", "a.4b", "a"], exploits="a"))
    assert names(third) == names(second)


def test_when_a_soup_wins_its_best_ingredient_is_exploited():
    settings = config(exploit={"after": 1}, competitors=[*COMPETITORS, {"name": "mix", "kind": "soup"}])
    assert settings.exploit is not None
    first = next_roster(settings, "l", 1, None, None)
    rankings = [["mix", "a", "control", "b"], ["mix", "b", "a"]]
    decided = decide(settings.exploit, first, ["mix", "mix"], rankings, separated=False)
    assert decided == ("a", "mix has won 2 rounds, and a ranks best of what it blends")
    second = next_roster(settings, "l", 3, first, verdict(2, ["mix", "b"], exploits="a"))
    assert [n for n in names(second) if isinstance(entry(second, n).recipe, SoupRecipe)] == ["mix"]


def test_a_separated_recipe_and_a_control_that_wins():
    settings = config(exploit={"when": "separated"})
    assert settings.exploit is not None
    first = next_roster(settings, "l", 1, None, None)
    assert decide(settings.exploit, first, ["b"], [["b", "a"]], separated=True) == (
        "b",
        "b beats every other recipe beyond doubt",
    )
    after = config(exploit={"after": 1})
    assert after.exploit is not None
    assert decide(after.exploit, first, ["control"], [["control", "a"]], separated=False) is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evolution": {"perturb": {"learning_rat": [2]}}}, 'no key "learning_rat" in an sft recipe; did you mean'),
        ({"evolution": {"perturb": {"learning_rate": []}}}, "give factors above 0"),
        ({"exploit": {}}, "give after, when, or both"),
        ({"racing": {"at": [0.5, 0.25]}}, "give rising shares"),
        ({"racing": {"at": [0.5], "keep": 1}}, "less than 1"),
        ({"changes": [{"from_round": 2}]}, "give one of enter, withdraw and extend"),
        ({"competitors": [*COMPETITORS, {"name": "s", "kind": "soup", "of": ["a", "e"]}]}, 'no other competitor "e"'),
        ({"competitors": [*COMPETITORS, {"name": "s", "kind": "soup", "of": ["a", "s"]}]}, 'no other competitor "s"'),
    ],
)
def test_rules_that_make_no_sense_are_refused(settings: dict[str, Any], message: str):
    with pytest.raises(ValueError) as error:
        config(**settings)
    assert message in str(error.value)


@pytest.fixture
def run(tmp_path: Path) -> RunDirectory:
    """A run whose lineage has begun round 1."""
    directory = RunDirectory(tmp_path / "run")
    directory.adopt(config())
    next_roster(config(), "l", 1, None, None).write(directory.round("l", 1) / "roster.json")
    return directory


def load(run: RunDirectory, tmp_path: Path, text: str) -> list[Any]:
    path = tmp_path / "entry.yaml"
    path.write_text(text)
    return load_entries(path, run)


def test_entered_and_withdrawn_count_from_the_next_round_and_are_on_record(run: RunDirectory, tmp_path: Path):
    recipes = load(run, tmp_path, "{name: hot, like: a, learning_rate: {each: [0.01, 0.02]}}")
    assert enter(run, recipes).from_round == 2
    assert withdraw(run, "d").from_round == 2
    assert set(current(run.config, run)) == {"a", "b", "c", "own", "control", "hot-0.01", "hot-0.02"}
    changed = run.with_changes(config())
    assert run.config.changes == changed.changes
    first = read_roster(run, "l", 1)
    assert first is not None
    assert names(first) == ["a", "b", "c", "d", "own", "control"]
    second = next_roster(changed, "l", 2, first, verdict(1, ["a", "b", "c", "d"]))
    assert names(second) == ["a", "b", "c", "own", "control", "hot-0.01", "hot-0.02"]
    assert second.reasons == ["hot-0.01 was entered.", "hot-0.02 was entered.", "d was withdrawn."]
    assert entry(second, "hot-0.01").recipe.batch_size == 8
    # The same config still goes on with this run; the run's own config repeats it elsewhere.
    run.check(config())
    RunDirectory(tmp_path / "other").check(run.config)
    with pytest.raises(UserError, match="changes: are others there"):
        run.check(config(changes=[Change(from_round=1, withdraw="b").model_dump()]))


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


def test_who_is_out_of_a_race():
    assert not is_out(5.0, [], keep=0.5)  # the first one at a rung goes on
    assert is_out(5.0, [4.0], keep=0.5)
    assert not is_out(3.0, [4.0], keep=0.5)
    assert not is_out(5.0, [4.0, 6.0], keep=0.5)  # the better two of three
    assert is_out(float("nan"), [4.0, 5.0], keep=0.5)
    assert not is_out(5.0, [float("nan")], keep=0.5)


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
