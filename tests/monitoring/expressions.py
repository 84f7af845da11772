"""What the alert rules and the dashboard ask Prometheus for."""

import json
import re

import yaml

from tests.conftest import ROOT

FOLDER = ROOT / "monitoring"
WORDS = {"sum", "by", "rate", "increase", "histogram_quantile", "count", "or", "le", "instance", "status", "reason"}
WORDS |= {"group", "kind", "result", "max", "avg", "vector"}
WORDS |= {"unless", "last_over_time", "model", "outcome"}


# Only where models are loaded on demand; tests/system/test_on_demand.py reads it there.
ON_DEMAND = {"lingbi_model_state"}


def rules() -> list:
    """The alert rules, as the file has them."""
    return yaml.safe_load((FOLDER / "prometheus/alerts.yml").read_text())["groups"][0]["rules"]


def panels() -> list:
    """The dashboard's panels."""
    return json.loads((FOLDER / "grafana/dashboards/lingbi.json").read_text())["panels"]


def expressions() -> list:
    """Every expression of rules and panels."""
    return [rule["expr"] for rule in rules()] + [target["expr"] for panel in panels() for target in panel["targets"]]


def metrics_of(expression: str) -> set:
    """The names of the metrics that an expression uses."""
    bare = re.sub(r'\{[^}]*\}|\[[^\]]*\]|"[^"]*"', "", expression)
    return {word for word in re.findall(r"[A-Za-z_]\w+", bare) if word not in WORDS}
