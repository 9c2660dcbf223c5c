"""Figures for Prometheus, and the dashboard that shows them."""

import json
import re
from pathlib import Path

from cluster.on_ray.metrics import GAUGES, show

DASHBOARD = Path(__file__).parents[4] / "cluster" / "grafana.json"


def test_without_ray_a_figure_goes_nowhere():
    show("no such figure", 1.0)


def test_the_dashboard_shows_every_figure_with_labels_that_it_has_and_no_other():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    targets = [target for panel in panels for target in panel["targets"]]
    shown = [re.findall(r"ray_(tournament_\w+)", target["expr"]) for target in targets]
    assert {name for names in shown for name in names} == GAUGES.keys()
    for target, (name,) in zip(targets, shown, strict=True):
        _, labels = GAUGES[name]
        asked = re.findall(r"(\w+)\s*[=!]~?\"", target["expr"]) + re.findall(r"{{(\w+)}}", target["legendFormat"])
        assert {*asked} <= {*labels}
    places = [tuple(panel["gridPos"].values()) for panel in panels]
    assert len({*places}) == len(places)
