"""scripts/key: make, list and remove API keys."""

import argparse
import sys

from lingbi.errors import LingbiError
from lingbi.http.auth import add_key, read_keys, remove_key
from lingbi.settings import load_settings


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 refused."""
    options = parse(arguments)
    try:
        file = load_settings().hashed_key_file()
        if options.command == "add":
            print(add_key(file, options.name, options.limit))
        elif options.command == "remove":
            remove_key(file, options.name)
        else:
            for key in read_keys(file):
                print(f"{key.name}  {key.limit or '-'}")
    except LingbiError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/key", description="API keys; running servers follow within a second."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    add = commands.add_parser("add", help="make a key and print it; only its hash is kept")
    add.add_argument("name", help="letters, digits, dot, dash, underscore")
    add.add_argument("--limit", type=int, help="most requests of this key at once")
    remove = commands.add_parser("remove", help="forget a key")
    remove.add_argument("name")
    commands.add_parser("list", help="names and limits")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
