"""Who may use the page: names with scrypt hashes in a file, read again when it changes.

`python -m lingbi_ui.logins add NAME` makes a password and prints it once; `list` and `remove NAME` complete it.
"""

import argparse
import asyncio
import hashlib
import hmac
import os
import re
import secrets
import sys
from pathlib import Path

from lingbi_ui.settings import PREFIX, ConfigurationError, load_settings

LINE = re.compile(r"(?P<name>[\w.@-]{1,64}) scrypt:(?P<salt>[0-9a-f]{32}):(?P<digest>[0-9a-f]{64})")
Known = dict[str, tuple[bytes, str]]  # {name: (salt, digest)}
COST = {"n": 1 << 14, "r": 8, "p": 1}


def hashed(password: str, salt: bytes) -> str:
    """scrypt of a password, in hex."""
    return hashlib.scrypt(password.encode(), salt=salt, dklen=32, **COST).hex()


class Logins:
    """The names and hashes in a file."""

    def __init__(self, file: Path):
        self.file = file
        self.read()

    def read(self) -> Known:
        """What the file says now. Raises ConfigurationError with the line's number."""
        try:
            lines = self.file.read_text().splitlines()
        except OSError as error:
            raise ConfigurationError(
                f"{PREFIX}LOGIN_FILE={str(self.file)!r}: {error.strerror}; make it with `scripts/login add NAME`"
            ) from None
        found: Known = {}
        for number, line in enumerate(lines, 1):
            match = LINE.fullmatch(line.strip())
            if match:
                found[match["name"]] = bytes.fromhex(match["salt"]), match["digest"]
            elif line.strip():
                raise ConfigurationError(f"{self.file} line {number} is no login; use scripts/login to make them")
        return found

    def is_right(self, name: str, password: str) -> bool:
        """Whether this name has this password, in a time that does not reveal whether the name exists."""
        salt, digest = self.read().get(name, (bytes(16), ""))
        return hmac.compare_digest(hashed(password, salt), digest)

    async def admits(self, name: str, password: str) -> bool:
        """Like is_right, but in a thread, because scrypt is slow on purpose."""
        return await asyncio.to_thread(self.is_right, name, password)

    def write(self, logins: Known) -> None:
        """Replace the file in one step."""
        text = "".join(f"{name} scrypt:{salt.hex()}:{digest}\n" for name, (salt, digest) in logins.items())
        self.file.parent.mkdir(parents=True, exist_ok=True)
        beside = self.file.with_name(f"{self.file.name}.{os.getpid()}.new")
        with os.fdopen(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as stream:
            stream.write(text)
        beside.replace(self.file)


def main(arguments: list[str] | None = None) -> int:
    """Exit status: 0 done, 2 for a bad configuration or name."""
    parser = argparse.ArgumentParser(prog="scripts/login", description="Who may use the page.")
    parser.add_argument("action", choices=("add", "list", "remove"))
    parser.add_argument("name", nargs="?")
    options = parser.parse_args(arguments)
    try:
        settings = load_settings()
        if settings.login_file is None:
            raise ConfigurationError(f"{PREFIX}LOGIN_FILE is not set; set it to the file that shall hold the logins")
        print(change(settings.login_file, options.action, options.name))
    except ConfigurationError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_status
    return 0


def change(file: Path, action: str, name: str | None) -> str:
    """Carry out the command; returns what to print."""
    file.touch(mode=0o600)
    logins = Logins(file)
    known = logins.read()
    if action == "list":
        return "\n".join(known) or "no logins"
    if not name or not re.fullmatch(r"[\w.@-]{1,64}", name):
        raise ConfigurationError(f"{name!r} is no name; use up to 64 letters, digits and . _ @ -")
    if action == "remove":
        if name not in known:
            raise ConfigurationError(f"{file} has no login {name}; `scripts/login list` shows them")
        known.pop(name)
        logins.write(known)
        return (
            f"{name} may not use the page any more; before the name goes to somebody else, `scripts/usage erase --key "
            f"ui/{name}` removes what this one has stored"
        )
    if name in known:
        raise ConfigurationError(f"{file} has a login {name} already; remove it first, or take another name")
    password, salt = secrets.token_urlsafe(12), secrets.token_bytes(16)
    logins.write(known | {name: (salt, hashed(password, salt))})
    return password


if __name__ == "__main__":
    sys.exit(main())
