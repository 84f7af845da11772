"""A real worker that writes what it has imported to a file when it ends: `python -m tests.system.telling_worker FILE`."""

import sys
from pathlib import Path

if __name__ == "__main__":
    from lingbi.worker import main as worker

    status = worker.main()
    Path(sys.argv[1]).write_text("\n".join(sorted({name.partition(".")[0] for name in sys.modules})))
    worker.exit_now(status)
