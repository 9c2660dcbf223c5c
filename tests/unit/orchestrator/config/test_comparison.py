"""Where two configs differ."""

from typing import Any

from orchestrator.config.comparison import differences, flatten
from orchestrator.config.tournament import TournamentConfig


def config(**settings: Any) -> TournamentConfig:
    return TournamentConfig.model_validate(
        {
            "name": "t",
            "data": {"source": "rows.jsonl", "prompt": "{a}", "completion": "{b}"},
            "lineages": [{"name": "l", "base": "./base"}],
            "rounds": 2,
            "budget": {"tokens": 1000},
            "competitors": [{"name": "a", "kind": "sft", "learning_rate": 1e-3}],
        }
        | settings
    )


WITHDRAWN = [{"from_round": 2, "withdraw": "a"}]


def test_what_is_computed_must_not_differ_and_where_it_runs_may():
    elsewhere = {"cluster": {"address": "auto"}, "tracking": {"json_lines": True}, "limits": {"grace_minutes": 1}}
    assert differences(config(**elsewhere), config()) == []
    dearer = {"cluster": {"prices": {"H100": 3.5}}, "limits": {"cost": 200}}
    assert differences(config(**dearer), config()) == []
    assert differences(config(rounds=3), config()) == ["rounds: 3 is 2 there"]
    more = config(competitors=[{"name": "b", "kind": "unchanged"}])
    assert "competitors.b.kind: unchanged is absent there" in differences(more, config())
    assert "competitors.a.learning_rate: absent is 0.001 there" in differences(more, config())


def test_how_it_runs_may_differ_but_for_what_losses_depend_on():
    def evaluated(**settings: Any) -> TournamentConfig:
        return config(evaluation=settings)

    assert differences(evaluated(at_once=1, resources={"cpus": 0, "memory_gb": 8}), config()) == []
    assert differences(evaluated(resources={"cpus": 0, "labels": {"zone": "a"}}), config()) == []
    for fixed in ({"batch_tokens": 512}, {"resources": {"cpus": 2}}, {"resources": {"cpus": 0, "gpus": 0}}):
        assert len(differences(evaluated(**fixed), config())) == 1
    field = [{"name": "a", "kind": "sft", "learning_rate": 1e-3, "resources": {"memory_gb": 4, "labels": {"z": "a"}}}]
    assert differences(config(competitors=field), config()) == []


def test_changes_that_are_on_record_there_are_no_difference():
    assert differences(config(), config(changes=WITHDRAWN)) == []
    assert differences(config(changes=WITHDRAWN), config()) == ["changes: are others there"]


def test_list_items_go_by_name_where_they_have_one():
    value = {"a": {"b": [1, 2]}, "c": [{"name": "x", "d": 1}, {"d": 2}]}
    assert dict(flatten(value)) == {"a.b": [1, 2], "c.x.name": "x", "c.x.d": 1, "c.1.d": 2}
