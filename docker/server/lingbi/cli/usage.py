"""scripts/usage: who used what and when, as a table, JSON or CSV; and one owner's usage, given out or erased."""

import argparse
import json
import sys
import time
from pathlib import Path

from lingbi.accounts.database import Database, parse_url
from lingbi.accounts.opening import database_of, zone_of
from lingbi.accounts.usage.reports import DIMENSIONS, FILTERS, Report, answer, question
from lingbi.accounts.usage.spans import FORMS, span_of
from lingbi.batch import owned
from lingbi.batch.moving import move
from lingbi.batch.store import Store, store_of
from lingbi.cli.usage_table import as_csv, as_json, as_table, shown
from lingbi.errors import ConfigurationError, LingbiError
from lingbi.settings import Settings, load_settings

MONTHLY = "owner,group,key,model"


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 the database is away, 2 refused."""
    options = parse(arguments)
    try:
        ACTIONS[options.action](load_settings(), options)
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/usage", description=__doc__.split(": ", 1)[1])
    parser.add_argument("action", nargs="?", choices=sorted(ACTIONS), default="report")
    parser.add_argument("--by", help=f"with commas: {', '.join(DIMENSIONS)}; default: key")
    parser.add_argument("--since", help=f"the first: {FORMS}")
    parser.add_argument("--until", help="the last, included; default: now")
    parser.add_argument("--month", help="a month, as in 2026-11, by owner, group, key and model")
    for name in FILTERS:
        parser.add_argument(f"--{name}", help=f"only of this {name}")
    parser.add_argument("--top", type=int, help="only so many, those with most tokens")
    parser.add_argument(
        "--from", dest="file", type=Path, help="with move: the file of accounts to copy into the configured database"
    )
    parser.add_argument(
        "--files",
        type=Path,
        help="with move: the folder of its uploads; default: LINGBI_FILES_DIR, or that of its state folder",
    )
    parser.add_argument(
        "--missing-ok", action="store_true", help="with move: though the contents of some uploads are missing"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_const", const="json", dest="form")
    form.add_argument("--csv", action="store_const", const="csv", dest="form")
    return parser.parse_args(arguments)


def report(settings: Settings, options: argparse.Namespace) -> None:
    """Print what was used."""
    if options.month and (options.since or options.until):
        raise ConfigurationError("--month says both ends; leave --since and --until out")
    since, until = (options.month,) * 2 if options.month else (options.since, options.until)
    zone = zone_of(settings)
    span = span_of(since, until, time.time(), zone)
    by = options.by or (MONTHLY if options.month else "key")
    asked = question(by, span, {name: getattr(options, name) for name in FILTERS}, options.top)
    print(written(answer(_database(settings), asked, zone), asked.by, options.form), end="")


def written(found: Report, by: tuple[str, ...], form: str | None) -> str:
    """The report as text."""
    rows = [shown(row) for row in found.rows]
    if form == "json":
        return json.dumps(rows, ensure_ascii=False, indent=1) + "\n"
    return as_csv(rows, by) if form == "csv" else as_table(rows, by)


def export(settings: Settings, options: argparse.Namespace) -> None:
    """Print all that is known of an owner, as JSON; results of batches may be larger than memory."""
    tables = owned.export(_database(settings), *_whose(options))
    sys.stdout.writelines(as_json(tables))


def erase(settings: Settings, options: argparse.Namespace) -> None:
    """Make an owner's usage nobody's, and remove the files and batches."""
    names, taken = owned.erase(store_of(settings, _database(settings)), *_whose(options))
    print(f"erased: the usage of {', '.join(names)} is nobody's now, and so are these keys; they still open the server")
    print(f"removed: {taken}")


def move_here(settings: Settings, options: argparse.Namespace) -> None:
    """Copy all that a database file holds, and the uploads beside it, into the configured database and its place for them."""
    if options.file is None:
        raise ConfigurationError("move which accounts? Give --from FILE, as in --from .lingbi/accounts/accounts.db")
    if not options.file.is_file():
        raise ConfigurationError(f"--from {options.file}: there is no such file")
    target = store_of(settings, database_of(settings))
    try:
        copied = move(_source(settings, options), target, options.missing_ok)
    except OSError as error:
        raise LingbiError(f"nothing was moved: an upload could not be copied: {error}") from None
    print(f"moved to {target.database}: {', '.join(f'{count} {name}' for name, count in copied.items() if count)}")


def _source(settings: Settings, options: argparse.Namespace) -> Store:
    """What is moved: a server with this file keeps uploads beside the file's folder, unless LINGBI_FILES_DIR says where."""
    file = options.file.absolute()
    there = {"state_dir": file.parent.parent, "files_dir": options.files or settings.files_dir}
    return store_of(settings.model_copy(update=there), Database(parse_url(f"sqlite:///{file}")))


def _database(settings: Settings) -> Database:
    database = database_of(settings)
    database.bring_up_to_date()
    return database


def _whose(options: argparse.Namespace) -> tuple[str | None, str | None]:
    if (options.owner is None) == (options.key is None):
        raise ConfigurationError(f"{options.action} whose usage? Give --owner NAME, or --key NAME")
    return options.owner, options.key


ACTIONS = {"report": report, "export": export, "erase": erase, "move": move_here}

if __name__ == "__main__":
    sys.exit(main())
