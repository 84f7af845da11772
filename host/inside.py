"""Whether lingbi runs in containers here: exit status 0 or 1."""

import sys

from host.machine import look
from host.stack import is_running

if __name__ == "__main__":
    sys.exit(0 if look().engine and is_running() else 1)
