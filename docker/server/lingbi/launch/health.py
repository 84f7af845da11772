"""Whether every worker that the entrypoint started is ready: the image's health check. Exit status 0 or 1."""

import http.client
import json
import os
import sys
from pathlib import Path

TIMEOUT_S = 8


def main() -> int:
    """Ask each worker; the reasons go to the health log (`docker inspect`)."""
    record = Path(os.environ["LINGBI_STATE_DIR"], "run", "server.json")
    try:
        told = json.loads(record.read_text())
    except FileNotFoundError:
        print("preparing: no worker has been started yet")
        return 1
    faults = {port: fault for port in told["ports"] if (fault := find_fault(port))}
    names = dict(zip(told["ports"], told.get("serves", []), strict=False))  # where there are several models
    print("; ".join(f"{names.get(port, 'port')} {port}: {fault}" for port, fault in faults.items()) or "ready")
    return 1 if faults else 0


def find_fault(port: int) -> str | None:
    """Why the worker on a port is not ready, or None."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/ready")
        answer = connection.getresponse()
        body = answer.read().decode(errors="replace")
        return None if answer.status == 200 else body[:300]
    except (OSError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
