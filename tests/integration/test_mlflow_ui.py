"""What a stranger sees in the MLflow UI: the tree of runs, the chart of test loss, the registered champion."""

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestrator.config.tournament import TournamentConfig
from orchestrator.record.events import TournamentEnded
from orchestrator.record.run_directory import RunDirectory
from orchestrator.record.snapshot import Snapshot
from orchestrator.tracking.ledger import Ledger
from orchestrator.tracking.location import TRAINING, chart_path, run_path, store_uri, tree_path, ui_argv
from orchestrator.tracking.points import champions
from orchestrator.tracking.sync import MlflowTracker
from tests import tracked
from tests.browser import browser_page
from tests.processes import processes_of

WAIT_SECONDS = 180.0
"""For the server; on a quiet machine it takes a few seconds."""
FORFEIT = ("sn9", 2, "full")
REASON = "- an <b>end</b> & a *loss* in a_b_c [x](y) `z` #1 {chart} ~~ |"


def make(root: Path) -> tuple[TournamentConfig, RunDirectory]:
    """A finished tournament of two lineages, with a reference and a published series, in its SQLite store."""
    config, run = tracked.make(root, lineages=("llama", "sn9"), forfeits={FORFEIT: REASON})
    tracker = MlflowTracker(config, run)
    tracker.open()
    assert tracker.sync("finished")
    tracker.hear([TournamentEnded("finished")])
    return config, run


@contextmanager
def served(argv: list[str], port: int, log: Path) -> Iterator[str]:
    """The root of a server that runs while the block lasts; of its processes none may be left behind."""
    with log.open("wb") as out:
        server = subprocess.Popen(argv, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)
    try:
        root = f"http://127.0.0.1:{port}/"
        deadline = time.monotonic() + WAIT_SECONDS
        while not answers(f"{root}health"):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.3)
        yield root
    finally:
        end(server)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:
            return bool(response.status == 200)
    except OSError:
        return False


def end(server: subprocess.Popen[bytes]) -> None:
    """End the server as Ctrl-C in a terminal would: its whole group is told, and nothing of it may stay."""
    os.killpg(server.pid, signal.SIGINT)
    server.wait(WAIT_SECONDS)
    deadline = time.monotonic() + WAIT_SECONDS
    while (left := processes_of(server.pid)) and time.monotonic() < deadline:
        time.sleep(0.3)
    for process in left:
        process.kill()
    assert left == []


@pytest.mark.slow
@pytest.mark.browser
def test_a_stranger_finds_tree_chart_and_champion(tmp_path: Path) -> None:
    with browser_page(1600, 1400) as page:  # first, since it may skip
        config, run = make(tmp_path / "demo")
        ledger = Ledger.of(run, store_uri(config, run))
        experiment = ledger.experiment_id
        assert experiment is not None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        with served(ui_argv(config, run, port), port, tmp_path / "ui.log") as root:
            snapshot = tracked.snapshot_of(run)
            check_tree(page, root + tree_path(experiment))
            check_chart(page, root + chart_path(experiment), snapshot)
            check_champion(page, root, snapshot)
            check_note(page, root + run_path(experiment, ledger.runs["sn9/2/full"].run_id))


def check_tree(page: Any, address: str) -> None:
    """Plus signs open it: tournament, lineage, round, competitor."""
    go(page, address)
    for name in ("demo", "llama", "round 2 (llama)"):
        row = page.locator(".ag-row", has=page.get_by_role("link", name=name, exact=True))
        row.locator("[col-id]", has=page.get_by_role("link", name=name, exact=True)).locator("button").first.click()
    page.get_by_role("link", name="lora-r16", exact=True).wait_for()
    assert page.get_by_role("link", name="full", exact=True).count() == 1  # of this round alone


def check_chart(page: Any, address: str, snapshot: Snapshot) -> None:
    """One line for each lineage, reference and published series, and in it the numbers of the record."""
    config, rounds = snapshot.config, range(snapshot.config.rounds + 1)
    expected = {one.name: [card.reported.loss for _, _, card in champions(one)] for one in snapshot.lineages}
    expected |= {name: [card.reported.loss for _ in rounds] for name, card in snapshot.references.items()}
    expected |= {row.name: row.published for row in config.references if row.published}
    assert len(expected) == 4
    go(page, address)
    script = """count => {
      const plots = [...document.querySelectorAll('.js-plotly-plot')].map(plot => plot.data || []);
      const chart = plots.find(lines => lines.length >= count && lines.every(line => line.metricKey === 'test_loss'));
      return chart && chart.map(line => [line.name, [...line.x], [...line.y]]);
    }"""
    lines = page.wait_for_function(script, arg=len(expected)).json_value()
    found = {name: (x, y) for name, x, y in lines}
    assert set(found) == set(expected)
    for name, losses in expected.items():
        assert found[name] == (list(rounds), pytest.approx(losses, abs=1e-6))


def check_champion(page: Any, root: str, snapshot: Snapshot) -> None:
    """The registered model's newest version has the alias, and says which competitor it was."""
    crowned = [verdict for verdict in snapshot.lineages[0].verdicts if verdict.dethroned]
    go(page, f"{root}#/models/demo-llama?workflowType={TRAINING['workflowType']}")
    row = page.get_by_role("row", name=f"Version {len(crowned)}")
    row.get_by_text("champion", exact=False).first.wait_for()
    words = row.inner_text()
    assert "@ champion" in " ".join(words.split())
    assert str(crowned[-1].champion.competitor) in words
    assert page.get_by_text("@ champion").count() == 1


def check_note(page: Any, address: str) -> None:
    """A competitor's own words stand in a note as they are."""
    go(page, address)
    page.get_by_text(f"Forfeit: {REASON}").first.wait_for()


def go(page: Any, address: str) -> None:
    """Load an address anew: where only the part after # differs, the UI would keep its state."""
    page.goto("about:blank")
    page.goto(address)
