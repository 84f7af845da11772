"""Whether this container's page server answers: the image's health check. Exit status 0 or 1."""

import http.client
import os
import sys

from lingbi_ui import PORT

TIMEOUT_S = 8


def main() -> int:
    """Ask the page server itself, whatever state the servers behind it are in."""
    port = int(os.environ.get("LINGBI_UI_PORT") or PORT)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/live")
        status: int | str = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        status = f"{type(error).__name__}: {error}"
    print(status)
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
