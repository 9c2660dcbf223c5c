"""A tournament in a bucket, on nodes that share no folder, submitted from outside and looked at from there."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.in_process import InProcessWorkers
from orchestrator.views.leaderboard import Leaderboard
from tests.object_servers import moto
from tests.ray_nodes import REPOSITORY, Nodes, call, cluster, python_of
from tests.tournaments import losses, run, sft, write_tournament

CHANGES = {"rounds": 2, "budget": {"steps": 40}, "evaluation": {"samples": 0}}
GANG = sft("gang", resources={"workers": 2, "cpus": 2})  # a node holds one of them


@pytest.fixture(scope="module")
def nodes() -> Iterator[tuple[Nodes, str]]:
    with moto() as server, cluster((2, 2), server.variables(server.address)) as nodes:
        yield nodes, server.url


@pytest.mark.slow
def test_it_ends_as_on_one_machine_and_is_looked_at_from_outside(
    nodes: tuple[Nodes, str], inputs: Path, tmp_path: Path
):
    on, url = nodes
    field = [sft("full"), sft("lora", adapter={"method": "lora", "rank": 4})]
    (tmp_path / "plain").mkdir()
    plain = run(
        write_tournament(inputs, tmp_path / "plain", field, **CHANGES), tmp_path / "one", InProcessWorkers(1, 0)
    )
    config = write_tournament(inputs, tmp_path, [*field, GANG], cluster={"storage": url}, **CHANGES)
    laptop = python_of(tmp_path / "laptop", REPOSITORY)

    def tournament(*arguments: str) -> str:
        done = call(laptop, "-m", "orchestrator", *arguments, environment=on.environment, seconds=900)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    said = tournament("submit", str(config), "--address", on.dashboard)
    assert "gang: scored" in said
    board = Leaderboard.model_validate_json(tournament("leaderboard", f"{url}/tiny", "--json"))
    assert board.state == "finished"
    alone = [(e.competitor, e.validation_loss) for r in plain.lineages[0].rounds[:2] for e in r.entries]
    there = [(e.competitor, e.validation_loss) for r in board.lineages[0].rounds[:2] for e in r.entries]
    assert [one for one in there if one[0] != "gang"] == pytest.approx(alone)
    assert json.dumps(losses(board))
    tournament("export", f"{url}/tiny", str(tmp_path / "champion"))
    assert (tmp_path / "champion" / "model.safetensors").stat().st_size > 10_000
    cached = [{path.name for path in (on.folder / f"cache-{number}/blobs").glob("*")} for number in (1, 2)]
    assert all(cached), "both nodes have fetched what they needed"
    assert not [path for cache in on.folder.glob("cache-*") for path in (cache / "views").iterdir()]
