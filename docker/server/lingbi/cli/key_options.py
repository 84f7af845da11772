"""The command line of scripts/key, and what its options wish for."""

import argparse
from typing import Any

from lingbi.accounts.facts import MEASURES
from lingbi.accounts.keys.terms import Limits, limits_of

NAME = "letters, digits, dot, dash, underscore"
EACH = "each_"
DETAILS = """Limits are written as in 100k/day, 2M/month or 60/minute, several with commas; `no-limit` takes one away, as in
no-limit/day, and 0 allows nothing. Dates are the lab's (LINGBI_TIME_ZONE). Running servers follow within two seconds."""


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/key", description="API keys and groups of them.", epilog=DETAILS)
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make a key and print it; only its hash is kept", epilog=DETAILS)
    limit = commands.add_parser("limit", help="change what a key may do, or what is noted of it", epilog=DETAILS)
    for one in (add, limit):
        one.add_argument("name", help=NAME)
        _key_options(one)
    listed = commands.add_parser("list", help="all keys, with what each may do")
    listed.add_argument("--all", action="store_true", help="also those that were revoked")
    listed.add_argument("--json", action="store_true", help="everything that is known of each, for programs")
    rotate = commands.add_parser("rotate", help="print another secret for a key; the one before ends after a while")
    rotate.add_argument("name")
    rotate.add_argument("--overlap", default="24h", help="how long both work, as in 30m, 24h, 7d or 0 (default 24h)")
    for name in ("revoke", "remove"):
        commands.add_parser(name, help="end a key now; what it used stays counted").add_argument("name")
    _groups(commands.add_parser("group", help="groups of keys, with limits of all together and of each"))
    commands.add_parser("show", help="print the operator's own key, the only one that is kept in plain")
    forget = commands.add_parser("forget-host", help="end the keys that lay in the key file of a host that is gone")
    forget.add_argument("host", help="its name, as list --json shows it")
    return parser.parse_args(arguments)


def _groups(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="group_command", required=True)
    for name, text in (("add", "make a group"), ("limit", "change what its keys may do")):
        one = commands.add_parser(name, help=text, epilog=DETAILS)
        one.add_argument("name", help=NAME)
        _limits(one, "", " of all its keys together")
        _limits(one, "each-", " of each of its keys, where that has none of its own")
        one.add_argument("--each-weight", help="of each of its keys (see scripts/key limit)")
        _common(one)
    commands.add_parser("list", help="all groups").add_argument("--json", action="store_true", help="for programs")
    remove = commands.add_parser("remove", help="remove a group")
    remove.add_argument("name")
    remove.add_argument("--keep-keys", action="store_true", help="though it has keys, which go on without its limits")


def _key_options(parser: argparse.ArgumentParser) -> None:
    _limits(parser, "", "")
    parser.add_argument(
        "--weight", help="how many ordinary keys it counts as where all wait; no-limit: as its --concurrency"
    )
    _common(parser)
    parser.add_argument("--owner", help="who has it")
    parser.add_argument("--group", help="its group; none: no group")
    parser.add_argument(
        "--admin",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="whether it may use /v1/admin and the page for it",
    )


def _limits(parser: argparse.ArgumentParser, prefix: str, of: str) -> None:
    for measure in MEASURES:
        parser.add_argument(f"--{prefix}{measure}", action="append", metavar="N/PERIOD", help=f"most {measure}{of}")
    names = [f"--{prefix}concurrency", *(["--limit"] if not of else [])]  # --limit: what versions up to 0.1 called it
    parser.add_argument(
        *names, metavar="N", help=f"most requests at once{of}", dest=f"{prefix}concurrency".replace("-", "_")
    )


def _common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", help="models that may be used, with commas, as in vl-7b,4khd-7b; all: every one")
    parser.add_argument("--until", metavar="DATE", help="last day, as in 2026-12-31, or a time; never: no end")
    parser.add_argument("--note", help="what you like to remember")


def key_wishes(options: argparse.Namespace) -> tuple[dict[str, Any], Limits]:
    """(fields, limits) of a key, as wishes.Reader.key takes them. Raises BadTerm."""
    fields = {"owner": options.owner, "group": options.group, "is_admin": options.admin, "weight": options.weight}
    return _given(fields | _fields(options)), _wished_limits(options)


def group_wishes(options: argparse.Namespace) -> tuple[dict[str, Any], Limits, dict[str, Any], Limits]:
    """The same of a group, as wishes.Reader.group takes them. Raises BadTerm."""
    each = _given({"weight": options.each_weight, "concurrency": options.each_concurrency})
    return _given(_fields(options)), _wished_limits(options), each, _wished_limits(options, EACH)


def _fields(options: argparse.Namespace) -> dict[str, Any]:
    return {
        "note": options.note,
        "concurrency": options.concurrency,
        "models": options.models,
        "ends_at": options.until,
    }


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}


def _wished_limits(options: argparse.Namespace, prefix: str = "") -> Limits:
    found: Limits = {}
    for measure in MEASURES:
        found |= limits_of(measure, getattr(options, prefix + measure) or [])
    return found
