"""Whether this container's page server answers: the image's health check. Exit status 0 or 1."""

import http.client
import sys

from lingbi_ui.settings import load_settings

TIMEOUT_S = 8


def main() -> int:
    """Ask the page server itself, whatever is behind it."""
    connection = http.client.HTTPConnection("127.0.0.1", load_settings().port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/live")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        status = f"{type(error).__name__}: {error}"
    print(status)
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
