"""Ray exports our figures on each node."""

import time
import urllib.request

import pytest

from cluster.on_ray.connect import connected
from cluster.on_ray.metrics import show


@pytest.mark.slow  # Ray hands figures on every ten seconds
def test_prometheus_finds_them_at_the_node(ray_address: str):
    import ray

    with connected(ray_address):
        show("tournament_round", 2, tournament="t", lineage="l")
        node = ray.nodes()[0]
        url = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
        deadline, line = time.monotonic() + 60, ""
        while not line and time.monotonic() < deadline:
            time.sleep(1)
            said = urllib.request.urlopen(url, timeout=10).read().decode()
            line = next((one for one in said.splitlines() if one.startswith("ray_tournament_round{")), "")
    assert 'lineage="l"' in line
    assert 'tournament="t"' in line
    assert line.endswith(" 2.0")
