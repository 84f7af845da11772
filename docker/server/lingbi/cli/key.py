"""scripts/key: make, list, change and end API keys and groups of them, and show the operator's own."""

import json
import sys
from argparse import Namespace
from collections.abc import Callable

from lingbi.accounts.database import Database, now_of
from lingbi.accounts.key_file import own_key, read_keys
from lingbi.accounts.keys.changes import change_key, forget_host, read, revoke_key, rotate_key
from lingbi.accounts.keys.forms import REVOKED, groups_form, keys_form
from lingbi.accounts.keys.groups import add_group, change_group, remove_group
from lingbi.accounts.keys.takeover import take_over
from lingbi.accounts.keys.terms import models_of, overlap_of
from lingbi.accounts.keys.wishes import Reader
from lingbi.accounts.opening import host_of, open_database, zone_of
from lingbi.batch.owned import add_key
from lingbi.cli.key_options import group_wishes, key_wishes, parse
from lingbi.cli.key_table import groups_table, keys_table, moment
from lingbi.errors import LingbiError
from lingbi.model.catalogue import served_name
from lingbi.settings import Settings, load_settings


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 1 the database is away, 2 refused."""
    options = parse(arguments)
    try:
        settings = load_settings()
        if options.command == "show":
            print(own_key(settings.key_file()))
        else:
            ACTIONS[options.command](Register(settings), options)
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


class Register:
    """The database of the keys, with those of this host's key file taken over."""

    def __init__(self, settings: Settings) -> None:
        self.zone = zone_of(settings)
        self.database: Database = open_database(settings)
        with self.database.read() as connection:
            self.now = now_of(connection)
        self.reader = Reader(self.zone, self.now, served_name)
        file = settings.hashed_key_file()
        if file.exists():
            take_over(self.database, read_keys(file), host_of(settings))


def add(register: Register, options: Namespace) -> None:
    warn_of_models(options)
    change = register.reader.key(*key_wishes(options))
    made, taken = add_key(register.database, options.name, change)
    print(made)
    if taken:
        print(f"{options.name} was revoked, and begins anew; removed of its former holder: {taken}", file=sys.stderr)


def list_keys(register: Register, options: Namespace) -> None:
    found = keys_form(read(register.database), register.now)
    if options.json:
        print(json.dumps(found, ensure_ascii=False, indent=2))
        return
    print(keys_table([key for key in found if options.all or key["state"] != REVOKED], register.zone))


def rotate(register: Register, options: Namespace) -> None:
    overlap_s = overlap_of(options.overlap)
    print(rotate_key(register.database, options.name, overlap_s))
    end = f"ends at {moment(register.now + overlap_s, register.zone)}" if overlap_s else "has ended"
    print(f"what the key {options.name} was before {end}", file=sys.stderr)


def revoke(register: Register, options: Namespace) -> None:
    revoke_key(register.database, options.name)


def limit(register: Register, options: Namespace) -> None:
    warn_of_models(options)
    change_key(register.database, options.name, register.reader.key(*key_wishes(options)))


def forget(register: Register, options: Namespace) -> None:
    print(f"{forget_host(register.database, options.host)} keys of {options.host} are forgotten", file=sys.stderr)


def group(register: Register, options: Namespace) -> None:
    GROUP_ACTIONS[options.group_command](register, options)


def group_add(register: Register, options: Namespace) -> None:
    warn_of_models(options)
    add_group(register.database, options.name, register.reader.group(*group_wishes(options)))


def group_limit(register: Register, options: Namespace) -> None:
    warn_of_models(options)
    change_group(register.database, options.name, register.reader.group(*group_wishes(options)))


def group_list(register: Register, options: Namespace) -> None:
    found = groups_form(read(register.database))
    print(json.dumps(found, ensure_ascii=False, indent=2) if options.json else groups_table(found, register.zone))


def group_remove(register: Register, options: Namespace) -> None:
    count = remove_group(register.database, options.name, options.keep_keys)
    print(f"{count} keys were in the group {options.name}", file=sys.stderr)


def warn_of_models(options: Namespace) -> None:
    """Say which models are not published: they may be folders of the lab's own, or slips."""
    for name in models_of(options.models, served_name)[1]:
        print(f"warning: no published model is called {name!r}; it counts as the name of a folder", file=sys.stderr)


Action = Callable[[Register, Namespace], None]
ACTIONS: dict[str, Action] = {
    "add": add,
    "list": list_keys,
    "rotate": rotate,
    "revoke": revoke,
    "remove": revoke,
    "limit": limit,
    "group": group,
    "forget-host": forget,
}
GROUP_ACTIONS: dict[str, Action] = {
    "add": group_add,
    "limit": group_limit,
    "list": group_list,
    "remove": group_remove,
}

if __name__ == "__main__":
    sys.exit(main())
