"""The lab's database of keys, usage and quotas: where it is, who may connect, and what is wrong with how it is declared."""

import ipaddress
import os
import re
from urllib.parse import urlsplit

NAME = "lingbi"  # of the database and of its user, as compose.yaml makes them
EXAMPLE = "postgresql://lingbi@db.lab:5432/lingbi"


def database_url(address, port):
    """The address of the lab's own database, without a password."""
    host = f"[{address}]" if ":" in address else address
    return f"postgresql://{NAME}@{host}:{port}/{NAME}"


def database_access(addresses, networks, is_server):
    """The text of pg_hba.conf: each of the addresses and networks, with the password.

    is_server: a server on the database's own host too; its connections come from Docker's network of the database.
    """
    allowed = [str(ipaddress.ip_network(part)) for part in dict.fromkeys([*addresses, *networks])]
    lines = [
        "local all all scram-sha-256",
        "host all all 127.0.0.1/32 scram-sha-256",
        "host all all ::1/128 scram-sha-256",
    ]
    lines += [f"host {NAME} {NAME} {part} scram-sha-256" for part in [*(["samenet"] if is_server else []), *allowed]]
    return "\n".join(lines)


def database_faults(declared):
    """A sentence for each thing that is wrong with the database that an inventory declares.

    declared: {"hosts": of lingbi_database, "others": of the two other groups, "url", "password_file", "allow"}.
    """
    hosts, url = declared["hosts"], str(declared["url"])
    return (
        group_faults(hosts, declared["others"], url)
        + (url_faults(url) if url else [])
        + password_faults(declared["password_file"], is_needed=bool(url))
        + [
            f"lingbi_database_allow: {part} is no network; give it as in 10.0.0.0/24"
            for part in declared["allow"]
            if not is_network(part)
        ]
    )


def group_faults(hosts, others, url):
    faults = []
    if len(hosts) > 1:
        faults.append(f"lingbi_database: {', '.join(hosts)}: one host keeps the database; name one")
    faults += [
        f"lingbi_database: {host} is in neither lingbi_servers nor lingbi_gateways; name a host that is"
        for host in hosts
        if host not in others
    ]
    if hosts and url:
        faults.append("lingbi_database_url: the group lingbi_database names a host too; leave one of the two out")
    return faults


def url_faults(url):
    try:
        parts = urlsplit(url)
        host, name, port = parts.hostname, parts.path.strip("/"), parts.port
    except ValueError:
        parts, host, name, port = urlsplit(""), None, "", None
    if not re.fullmatch(r"postgres(ql)?(\+psycopg)?", parts.scheme) or not name or port == 0:
        return [f"lingbi_database_url: this is no address of a PostgreSQL database; give it as in {EXAMPLE}"]
    if not host or not parts.username:
        return [f"lingbi_database_url: it names no {'user' if host else 'host'}; give it as in {EXAMPLE}"]
    if parts.password is not None or "password=" in parts.query:
        return [
            "lingbi_database_url: it holds a password; put that into a file, and the file into lingbi_database_password_file"
        ]
    return []


def password_faults(path, is_needed):
    if not path:
        return (
            [
                "lingbi_database_password_file: lingbi_database_url needs one; write the password into a file of mode 0600"
            ]
            if is_needed
            else []
        )
    if not os.path.isfile(path):
        return [f"lingbi_database_password_file: there is no file {path}; write the password there"]
    if not os.path.getsize(path):
        return [f"lingbi_database_password_file: {path} is empty; write the password there"]
    if os.stat(path).st_mode & 0o077:
        return [f"lingbi_database_password_file: others can read {path}; run: chmod 600 {path}"]
    return []


def is_network(text):
    try:
        ipaddress.ip_network(text)
    except ValueError:
        return False
    return True


class FilterModule:
    """Ansible's way to find filters."""

    def filters(self):
        return {
            "lingbi_database_url_at": database_url,
            "lingbi_database_access": database_access,
            "lingbi_database_faults": database_faults,
        }
