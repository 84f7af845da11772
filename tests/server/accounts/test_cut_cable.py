"""A cable between a worker and its PostgreSQL that is cut: neither end waits for the other for long.

The kernel drops what arrives at the sockets of a cut cable before it acknowledges it, so both ends hear nothing at all, as
from a host that has lost its power.
"""

import contextlib
import ctypes
import socket
import struct
import threading
import time

import pytest
import sqlalchemy as sa

from lingbi.accounts import database as module
from lingbi.accounts.database import Database, DatabaseAway
from lingbi.accounts.tables import groups
from lingbi.launch.supervision import wait_until

SO_ATTACH_FILTER = 26  # of Linux; the socket module has no name for it
RETURN = 0x06  # BPF_RET | BPF_K: of each packet keep so many bytes
CUT_S = 2
NOTICED_S = 30  # what a busy machine may take; else nobody notices for hours


class Cable:
    """Passes connections on to a port of this machine, until it is cut."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._ends = [self._listening]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def port(self) -> int:
        return self._listening.getsockname()[1]

    def cut(self) -> None:
        nothing = ctypes.create_string_buffer(struct.pack("HBBI", RETURN, 0, 0, 0))
        for end in self._ends:
            end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(nothing)))

    def remove(self) -> None:
        for end in self._ends:
            with contextlib.suppress(OSError):  # it has ended by itself
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # it is removed
            while True:
                near, _ = self._listening.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
                self._ends += [near, far]
                for source, target in ((near, far), (far, near)):
                    threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):  # one of its ends is gone, and so is the other
            while data := source.recv(1 << 16):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


@pytest.fixture
def cable(postgres):
    made = Cable(postgres.server.port)
    yield made
    made.remove()


@pytest.fixture
def near(postgres, cable, monkeypatch):
    """The database at the end of the cable; it hears of a cut sooner than others."""
    monkeypatch.setattr(module, "UNHEARD_S", CUT_S)
    monkeypatch.setattr(module, "UNENDED_S", CUT_S)
    made = Database(postgres.url.set(port=cable.port))
    made.bring_up_to_date()
    yield made
    made.engine.dispose()


def test_who_waits_for_an_answer_hears_that_none_comes(near, cable):
    said = []

    def ask() -> None:
        try:
            with near.read() as connection:
                connection.execute(sa.text("SELECT pg_sleep(1)"))
        except DatabaseAway as away:
            said.append(str(away))

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    time.sleep(0.5)
    cable.cut()
    asking.join(NOTICED_S)
    assert len(said) == 1 and "does not answer" in said[0]
    with pytest.raises(DatabaseAway), near.read():
        pass


def test_who_vanished_in_a_transaction_holds_nobody_up(near, cable, postgres):
    other = Database(postgres.url)
    held = near.engine.connect()
    held.execute(groups.insert().values(name="students"))
    cable.cut()

    def is_written() -> bool:
        try:
            with other.begin() as connection:
                connection.execute(groups.insert().values(name="students"))
        except DatabaseAway:
            return False
        return True

    assert wait_until(is_written, NOTICED_S)
    held.invalidate()
    other.engine.dispose()
