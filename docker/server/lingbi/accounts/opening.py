"""Where a server's accounts are, by its settings: their folder, their database, the lab's time zone, this host's name."""

import logging
import os
import secrets
import socket
from pathlib import Path
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from lingbi.accounts.database import Database, DatabaseAway, DatabaseRefuses, parse_url
from lingbi.errors import ConfigurationError
from lingbi.settings import Settings

log = logging.getLogger(__name__)


def folder_of(settings: Settings) -> Path:
    """The folder of all that the accounts keep on this host; made when missing, for its owner alone."""
    folder = settings.state_dir / "accounts"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def database_of(settings: Settings) -> Database:
    """The accounts' database, to which nobody has connected yet. Raises ConfigurationError for a bad setting."""
    if settings.database_url is None:
        return Database(parse_url(f"sqlite:///{folder_of(settings).absolute()}/accounts.db"))
    return Database(parse_url(settings.database_url, _password(settings.database_password_file)))


def open_database(settings: Settings) -> Database:
    """The accounts' database with its tables, for a command. Raises ConfigurationError or DatabaseAway."""
    database = database_of(settings)
    try:
        database.bring_up_to_date()
    except DatabaseRefuses as refusal:
        raise ConfigurationError(str(refusal)) from None
    return database


def database_at_start(settings: Settings) -> Database:
    """The same for a server, which starts without a database that is away. Raises ConfigurationError."""
    try:
        return open_database(settings)
    except DatabaseAway as away:
        log.error("%s; keys are those that this host knows, and it is tried again", away)
        return database_of(settings)


def check_accounts(settings: Settings) -> None:
    """Have a start refuse what it could not work with, before it changes anything. Raises ConfigurationError."""
    zone_of(settings)
    database_at_start(settings).engine.dispose()


def judge_accounts(settings: Settings) -> str:
    """What a start would find, without a change of it. Raises ConfigurationError for what a start would refuse."""
    zone_of(settings)
    if settings.database_url is None and not (folder_of(settings) / "accounts.db").exists():
        return "no database yet; the start makes one"
    database = database_of(settings)
    try:
        found = database.known_revision()
    except DatabaseRefuses as refusal:
        raise ConfigurationError(str(refusal)) from None
    except DatabaseAway as away:
        return f"{away}; a start would wait for it"
    return f"{database}, tables of revision {found}" if found else f"{database}, without tables yet"


def zone_of(settings: Settings) -> ZoneInfo:
    """The lab's time zone. Raises ConfigurationError."""
    try:
        return ZoneInfo(settings.time_zone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ConfigurationError(
            f"LINGBI_TIME_ZONE={settings.time_zone!r} is no time zone; give a name as in Asia/Shanghai or Europe/Berlin, or UTC"
        ) from None


def host_of(settings: Settings) -> str:
    """This host's name among those that share a database: made once, since a container's own changes with each start."""
    file = folder_of(settings) / "host"
    if not file.exists():
        beside = file.with_name(f"host.{os.getpid()}.new")
        beside.write_text(f"{socket.gethostname()[:60]}.{secrets.token_hex(4)}\n", encoding="utf-8")
        try:
            os.link(beside, file)  # whoever comes second takes what the first one made
        except FileExistsError:
            pass
        finally:
            beside.unlink()
    return file.read_text(encoding="utf-8").strip()


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        password = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"LINGBI_DATABASE_PASSWORD_FILE={str(file)!r} cannot be read: {error}") from None
    if not password:
        raise ConfigurationError(f"LINGBI_DATABASE_PASSWORD_FILE={str(file)!r} is empty; write the password into it")
    return password
