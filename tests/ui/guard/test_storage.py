"""The folder of uploads: its bounds, and the end of what is old or left over."""

import logging
import os
import time

import pytest

from lingbi_ui.guard.storage import LEAST_BYTES, Full, Storage
from lingbi_ui.guard.visitors import Share, Shares, Visitor

MIB = 1 << 20
ALICE, BOB, DESK = Visitor("alice", is_login=True), Visitor("bob", is_login=True), Visitor("10.0.0.1")
SHARES = Shares(login=Share(8, MIB), address=Share(96, 2 * MIB), all=Share(320, 3 * MIB))
HOUR_S = 3600


@pytest.fixture
def storage(tmp_path):
    (tmp_path / "nothing").mkdir()
    return Storage(tmp_path, SHARES, keep_h=24, min_free_mib=0)


def put(storage: Storage, visitor: Visitor, size: int, age_s: float = 0):
    place = storage.new_folder(visitor)
    storage.take(visitor, max(size, LEAST_BYTES))
    (place / "a.png").write_bytes(b"x" * size)
    storage.written(place)
    aged(place / "a.png", age_s)
    return place / "a.png"


def aged(file, age_s: float) -> None:
    then = time.time() - age_s
    for path in (file, file.parent):
        os.utime(path, (then, then))


def test_each_visitor_and_all_have_a_bound(storage):
    storage.take(ALICE, MIB)
    with pytest.raises(Full) as found:
        storage.take(ALICE, 1)
    assert (found.value.word, found.value.status) == ("files_many", 429)
    storage.take(DESK, MIB)
    storage.take(BOB, MIB)
    with pytest.raises(Full) as found:
        storage.take(DESK, 1)
    assert (found.value.word, found.value.status) == ("files_full", 503)


def test_a_login_is_not_the_address_of_that_name(storage):
    storage.take(Visitor("bob"), MIB)
    storage.take(BOB, MIB)


def test_room_comes_back_with_what_is_dropped(storage):
    place = storage.new_folder(ALICE)
    storage.take(ALICE, MIB)
    storage.give_back(ALICE, place, MIB)
    assert not place.exists()
    storage.take(ALICE, MIB)


def test_the_disk_keeps_its_free_space(tmp_path):
    with pytest.raises(Full) as found:
        Storage(tmp_path, SHARES, 24, min_free_mib=1 << 40).take(ALICE, 1)
    assert found.value.word == "files_full"


def test_what_is_old_goes_and_the_rest_counts_also_after_a_restart(storage, tmp_path):
    old, new = put(storage, ALICE, 1000, 25 * HOUR_S), put(storage, ALICE, 9000, 23 * HOUR_S)
    os.link(new, new.with_name("a.png.jpg"))
    again = Storage(tmp_path, SHARES, 24, 0)
    again.start()
    assert not old.exists() and new.exists()
    assert again.all_used == again.used[again.folder_of(ALICE).name] == 9000, "two names are one file"
    with pytest.raises(Full):
        again.take(ALICE, MIB - 8999)


def test_a_copy_of_an_old_file_is_new(storage, tmp_path):
    place = tmp_path / ("0" * 64)
    place.mkdir()
    (place / "shapes.png").write_bytes(b"x")
    os.utime(place / "shapes.png", (0, 0))  # as shutil.copy2 leaves it
    storage.sweep(time.time())
    assert (place / "shapes.png").exists()
    storage.sweep(time.time() + 25 * HOUR_S)
    assert not (place / "shapes.png").exists()


def test_leftovers_of_every_kind_go(storage, tmp_path):
    broken = tmp_path / ("0" * 64)
    broken.mkdir()
    left = [tmp_path / "tmpabc", tmp_path / "nothing/tmpdef", broken / "tmpghi"]
    for file in left:
        file.write_bytes(b"x")
    kept = put(storage, ALICE, 10)
    assert storage.start() == 3 and not any(file.exists() for file in left) and kept.exists()
    other = tmp_path / "nothing/other"
    other.write_bytes(b"x")
    storage.sweep(time.time() + 25 * HOUR_S)
    assert not other.exists() and list(tmp_path.iterdir()) == [tmp_path / "nothing"]


def test_a_folder_that_is_being_written_stays(storage):
    place = storage.new_folder(ALICE)
    os.utime(place, (0, 0))
    storage.sweep(time.time())
    assert place.exists()


def test_a_file_that_cannot_be_removed_is_told_and_the_others_go(storage, tmp_path, monkeypatch, caplog):
    stuck, other = put(storage, ALICE, 10, 25 * HOUR_S), put(storage, BOB, 10, 25 * HOUR_S)
    unlink = type(stuck).unlink

    def refused(self, **options):
        if self == stuck:
            raise PermissionError(13, "Permission denied")
        unlink(self, **options)

    monkeypatch.setattr(type(stuck), "unlink", refused)
    monkeypatch.setattr(
        logging.getLogger("uvicorn"), "propagate", True
    )  # a page that ran in this process turned it off
    with caplog.at_level(logging.WARNING, "uvicorn.error"):  # and had it say less
        storage.sweep(time.time())
    assert stuck.exists() and not other.exists() and "Permission denied" in caplog.text
