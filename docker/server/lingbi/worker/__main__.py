"""python -m lingbi.worker: what supervisor runs, once a GPU."""

from lingbi.worker.main import run_and_exit

run_and_exit()
