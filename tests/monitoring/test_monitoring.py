"""Prometheus takes the configuration, alerts fire as they should, and what they ask for exists."""

import re
import subprocess
from pathlib import Path

import httpx
import yaml

from tests.conftest import ROOT
from tests.monitoring.expressions import FOLDER, ON_DEMAND, expressions, metrics_of, panels, rules

# From exporters that are not ours, by their documented names, and from the gateway: test_prometheus.py asks both.
OF_OTHERS = re.compile(r"^(up|nginx_up|nginx_connections_active|lingbi_gateway_[a-z_]+|DCGM_FI_DEV_[A-Z_]+)$")


def test_prometheus_takes_the_configuration(promtool):
    done = subprocess.run(
        [promtool, "check", "config", FOLDER / "prometheus/prometheus.yml"], capture_output=True, text=True
    )
    assert done.returncode == 0 and f"{len(rules())} rules found" in done.stdout, done.stdout + done.stderr


def test_what_alerts_and_dashboard_ask_for_is_there(demo_server):
    told = httpx.get(f"{demo_server['url']}/metrics").text
    names = set(re.findall(r"^# TYPE (\S+)", told, re.M)) | set(re.findall(r"^(\w+)[{ ]", told, re.M))
    asked = set().union(*map(metrics_of, expressions()))
    assert len(asked) > 15
    assert {name for name in asked - ON_DEMAND if not OF_OTHERS.match(name) and name not in names} == set()


def fires_or_not(alert: str, series: list, fires: bool, at: str) -> dict:
    """A case of `promtool test rules`: an alert over series of values, at a time."""
    return {
        "name": f"{alert} {fires}",
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series],
        "promql_expr_test": [
            {
                "expr": f'count(ALERTS{{alertname="{alert}",alertstate="firing"}})',
                "eval_time": at,
                "exp_samples": [{"labels": "{}", "value": 1}] if fires else [],
            }
        ],
    }


def test_every_alert_has_its_case():
    text = Path(__file__).read_text()
    assert [rule["alert"] for rule in rules() if f'"{rule["alert"]}"' not in text] == []


def test_alerts_fire_and_keep_quiet(promtool, tmp_path):
    (tmp_path / "alerts.yml").write_text((FOLDER / "prometheus/alerts.yml").read_text())
    server, gpu = 'instance="10.0.0.1:23333"', 'gpu="0"'
    cases = [
        ("WorkerGone", f'up{{job="server",{server}}}', "0x10", "1x10", "5m"),
        ("WorkerNotReady", f"lingbi_ready{{{server}}}", "0x20", "1x20", "15m"),
        ("WorkerRestarts", f'lingbi_worker_restarts_total{{{server},reason="wedged"}}', "0+1x60", "1x60", "30m"),
        ("ServerErrors", f'lingbi_requests_total{{{server},status="500"}}', "0+10x30", "0x30", "20m"),
        ("QueueFull", f'lingbi_requests_total{{{server},status="429"}}', "0+10x30", "0x30", "20m"),
        (
            "UsageNotCounted",
            f'lingbi_ledger_errors_total{{{server},kind="database"}}',
            "0+30x20",
            "0+30x2 90x20",
            "15m",
        ),
        ("BatchesStand", "lingbi_batch_lines_left", "5x100", "0x100", "80m"),
        ("GatewayGone", 'nginx_up{job="gateway"}', "0x10", "1x10", "5m"),
        ("GpuFault", f"DCGM_FI_DEV_XID_ERRORS{{{gpu}}}", "79x10", "0x10", "5m"),
        ("GpuHot", f"DCGM_FI_DEV_GPU_TEMP{{{gpu}}}", "90x20", "60x20", "15m"),
    ]
    ready = [(f'lingbi_ready{{{server},model="vl-7b"}}', "1x20"), ('lingbi_ready{model="4khd-7b"}', "1x5 0x15")]
    known = [(f'lingbi_model_info{{{server},model="{model}"}}', "1x20") for model in ("vl-7b", "4khd-7b")]
    # A cumulative histogram in which every answer began within 30 s, and most, or hardly any, within 5 s.
    buckets = f'lingbi_time_to_first_token_seconds_bucket{{{server},le="%s"}}'
    slow = [(buckets % le, f"0+{step}x40") for le, step in (("5.0", 1), ("30.0", 10), ("+Inf", 10))]
    quick = [(buckets % le, "0+10x40") for le in ("5.0", "30.0", "+Inf")]
    going = [("lingbi_batch_lines_left", "5x100"), (f"lingbi_batch_lines_total{{{server}}}", "0+1x100")]
    tests = [fires_or_not("SlowFirstToken", slow, True, "30m"), fires_or_not("SlowFirstToken", quick, False, "30m")]
    tests += [
        fires_or_not("ModelAway", known + ready, True, "15m"),
        fires_or_not("ModelAway", known + ready, False, "5m"),
        fires_or_not("BatchesStand", going, False, "80m"),
    ]
    for alert, series, bad, good, at in cases:
        tests.append(fires_or_not(alert, [(series, bad)], True, at))
        tests.append(fires_or_not(alert, [(series, good)], False, at))
    (tmp_path / "tests.yml").write_text(yaml.safe_dump({"rule_files": ["alerts.yml"], "tests": tests}))
    done = subprocess.run([promtool, "test", "rules", tmp_path / "tests.yml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dashboard_is_provisioned_where_compose_mounts_it():
    compose = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]["grafana"]
    provider = yaml.safe_load((FOLDER / "grafana/provisioning/dashboards/lingbi.yml").read_text())["providers"][0]
    assert f"./monitoring/grafana/dashboards:{provider['options']['path']}:ro" in compose["volumes"]
    source = yaml.safe_load((FOLDER / "grafana/provisioning/datasources/prometheus.yml").read_text())["datasources"][0]
    assert {panel["datasource"]["uid"] for panel in panels()} == {source["uid"]}
