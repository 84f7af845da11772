"""scripts/fetch: fetch a model's weights into a folder and verify every file."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from lingbi.errors import ConfigurationError, LingbiError
from lingbi.model import catalogue
from lingbi.model.resolve import find_model
from lingbi.settings import Settings, load_settings
from lingbi.signals import end_at_signals
from lingbi.weights.fetch import Order, fetch
from lingbi.weights.progress import Progress, shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit status: 0 fetched, 1 the bytes are wrong, 2 configuration, 3 the fetch failed, 130 or 143 interrupted."""
    options = parse(arguments)
    end_at_signals()
    start, progress = time.monotonic(), Progress()
    try:
        order = order_of(options)
        with shown(progress):
            lock = fetch(order, progress)
    except LingbiError as error:
        say(f"error: {error}")
        return error.exit_status
    say(
        f"{order.folder}: {lock.model} at {lock.revision}, {len(lock.entries)} files, {lock.total_bytes / 1e9:.2f} GB, "
        f"verified ({time.monotonic() - start:.1f} s); digest {lock.digest[:12]}"
    )
    return 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/fetch", description="Fetch a model's weights into a folder and verify every file."
    )
    parser.add_argument("--model", required=True, help=f"{', '.join(catalogue.names())}, or a ModelScope id owner/name")
    parser.add_argument("--to", type=Path, help="folder that will hold the model (default: models/MODEL)")
    parser.add_argument("--revision", help="branch, tag or commit (default: master)")
    parser.add_argument("--lock", type=Path, help="accept only the bytes of this lock file; written if it is missing")
    parser.add_argument("--update", action="store_true", help="replace what the folder holds with what is requested")
    parser.add_argument("--endpoint", help="address of a ModelScope mirror")
    parser.add_argument("--token-file", type=Path, help="file with the ModelScope token, for private models")
    parser.add_argument("--connections", type=int, help="connections at once (default: 8)")
    return parser.parse_args(arguments)


def order_of(options: argparse.Namespace) -> Order:
    """The fetch that the options ask for. Raises ConfigurationError for a model that cannot be fetched."""
    settings = settings_of(options)
    found = find_model(options.model, settings.models_dir)
    if found.hub_id is None and not found.path.exists():
        raise ConfigurationError(
            f"--model {options.model}: there is no such folder; pass a name or ModelScope id in --model, "
            "and a folder in --to"
        )
    if found.hub_id is None:
        raise ConfigurationError(
            f"--model {options.model}: {found.reason} is already there and is not fetched; "
            "pass a name or ModelScope id to fetch a model"
        )
    folder = (options.to or found.path).expanduser().absolute()
    return Order(found.hub_id, folder, settings, options.update)


def settings_of(options: argparse.Namespace) -> Settings:
    return load_settings(
        hub_revision=options.revision,
        weights_lock=options.lock,
        hub_endpoint=options.endpoint,
        hub_token_file=options.token_file,
        fetch_connections=options.connections,
    )


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
