"""python -m lingbi.smoke: the checks from the command line."""

import sys

from lingbi.smoke.main import main

sys.exit(main())
