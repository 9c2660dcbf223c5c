"""A tournament in a bucket, on nodes that share no folder, submitted from outside and looked at from there."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from cluster.in_process import InProcessWorkers
from orchestrator.views.leaderboard import Leaderboard
from tests.object_servers import moto
from tests.ray_nodes import REPOSITORY, Nodes, call, cluster, python_of
from tests.tournaments import run, sft, write_tournament

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
    (tmp_path / "board.json").write_text(tournament("leaderboard", f"{url}/tiny", "--json"))
    board = Leaderboard.read(tmp_path / "board.json")
    assert board.state == "finished"
    # The seed of the second round is the first one's winner, which the gang may be.
    alone, there = ({e.competitor: e.validation_loss for e in b.lineages[0].rounds[0].entries} for b in (plain, board))
    assert {name: loss for name, loss in there.items() if name != "gang"} == pytest.approx(alone)
    tournament("export", f"{url}/tiny", str(tmp_path / "champion"))
    assert (tmp_path / "champion" / "model.safetensors").stat().st_size > 10_000
    for number in (1, 2):  # both nodes have worked, and leave nothing
        assert list((on.folder / f"cache-{number}" / "views").iterdir()) == []
