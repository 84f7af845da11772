"""What Prometheus is told of a gateway's placing: how many requests found their server, and who has how many now."""

from collections.abc import Iterable

from lingbi_gateway.router.offer import Answer
from lingbi_gateway.router.running import Running

PATH = "/metrics/gateway"
TYPE = "text/plain; version=0.0.4; charset=utf-8"
PLACED = "lingbi_gateway_placed_requests_total"
RUNNING = "lingbi_gateway_running_requests"


def told(running: Running, servers: Iterable[str]) -> Answer:
    """The counts in Prometheus's text format. servers: those that take requests now."""
    lines = [
        f"# HELP {PLACED} Requests by where they went: to the server of their last one (kept), to another as that was full"
        " (spilled) or away (moved), or for the first time (new)",
        f"# TYPE {PLACED} counter",
        *(f'{PLACED}{{result="{result}"}} {count}' for result, count in running.results.items()),
        f"# HELP {RUNNING} Requests that run on each server, of those that this gateway placed",
        f"# TYPE {RUNNING} gauge",
        *(f'{RUNNING}{{server="{server}"}} {running.loads[server]}' for server in sorted({*servers, *running.loads})),
    ]
    return Answer(200, "\n".join([*lines, ""]).encode(), TYPE)
