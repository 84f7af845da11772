"""One at a time in a model folder, over containers and hosts: a lock file in the folder itself."""

import contextlib
import os
import socket
import time

from filelock import FileLock, Timeout

from lingbi.weights.folder import WeightsFolder
from lingbi.weights.progress import Progress

RETRY_S = 0.5


@contextlib.contextmanager
def held(folder: WeightsFolder, progress: Progress):
    """Hold the folder's lock; waits as long as another process does, and says for whom.

    The kernel (or the NFS server) drops the lock when its holder dies.
    """
    lock = FileLock(folder.own / "mutex")
    holder = folder.own / "holder"
    while not _acquired(lock):
        progress.begin(f"waiting for {_who(holder)}, who is at work on {folder.path}", 0)
    try:
        holder.write_text(f"process {os.getpid()} on {socket.gethostname()}, since {time.strftime('%F %T')}")
        yield
    finally:
        lock.release()


def _acquired(lock: FileLock) -> bool:
    try:
        lock.acquire(timeout=RETRY_S)
    except Timeout:
        return False
    return True


def _who(holder) -> str:
    try:
        return holder.read_text()
    except OSError:  # it has the lock and not yet said who it is
        return "another process"
