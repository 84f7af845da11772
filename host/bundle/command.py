"""scripts/signature: make a key for signing, and verify what scripts/bundle made before it is used."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

from host.bundle import images, signature, statement
from host.errors import Refusal


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, or verified; 2 refused."""
    options = parse(arguments)
    try:
        print({"new-key": new_key, "verify": verify}[options.command](options))
    except Refusal as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/signature", description=__doc__.split(": ", 1)[1].capitalize())
    commands = parser.add_subparsers(dest="command", required=True)
    key = commands.add_parser("new-key", help="make a key, and print the line by which others trust it")
    key.add_argument("file", type=Path, help="the private key; its public key gets .pub")
    key.add_argument("--name", default="lingbi", help="whose key it is, as in release@lab")
    archive = commands.add_parser("verify", help="verify an archive, or the folder into which it was unpacked")
    archive.add_argument("path", type=Path, help="the archive or folder")
    archive.add_argument(
        "--signers", type=Path, help="file with the signers to trust; without it checksums alone count"
    )
    archive.add_argument("--version", default="", help="the version that it has to be")
    archive.add_argument(
        "--engine", action="store_true", help="verify that the images on this machine's engine are those, too"
    )
    archive.add_argument("--json", action="store_true", help="print what was found as one line of JSON")
    return parser.parse_args(arguments)


def new_key(options: argparse.Namespace) -> str:
    return signature.make_key(options.file, options.name)


def verify(options: argparse.Namespace) -> str:
    verified = statement.verify(options.path, options.signers, options.version)
    if options.engine:
        check_engine(verified)
    if not verified.signer:
        print("nobody's signature was verified: no --signers were given", file=sys.stderr)
    by = f"signed by {verified.signer}" if verified.signer else "whole"
    return json.dumps(asdict(verified)) if options.json else f"{options.path}: version {verified.version}, {by}"


def check_engine(verified: statement.Verified) -> None:
    """Raise Refusal unless the engine's images are those of the archive."""
    listed = ((str(image["tag"]), list(image["digests"])) for image in verified.images.values())
    faults = [fault for tag, digests in listed if (fault := images.fault(tag, images.inspect(tag), digests))]
    if faults:
        raise Refusal("; ".join(faults))


if __name__ == "__main__":
    sys.exit(main())
