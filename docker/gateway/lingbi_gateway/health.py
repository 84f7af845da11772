"""Whether this container's gateway answers: the image's health check. Exit status 0 or 1."""

import http.client
import ssl
import sys

from lingbi_gateway.settings import load_settings

TIMEOUT_S = 4


def main() -> int:
    """Ask nginx itself, whatever state the servers behind it are in."""
    settings = load_settings()
    if settings.tls == "off":
        connection = http.client.HTTPConnection("127.0.0.1", settings.port, timeout=TIMEOUT_S)
    else:
        # The certificate is for the names that clients use; this check connects to 127.0.0.1.
        context = ssl._create_unverified_context()
        connection = http.client.HTTPSConnection("127.0.0.1", settings.port, timeout=TIMEOUT_S, context=context)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        print(f"{type(error).__name__}: {error}")
        return 1
    print(status)
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
