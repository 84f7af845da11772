"""The archives of scripts/backup: which are refused, by name, and what a container that ends early leaves."""

import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from host.backup import archive, volumes
from host.errors import Refusal, StartFailed
from tests.compose.conftest import copy_repository


@pytest.fixture
def other(tmp_path):
    return copy_repository(tmp_path / "other")


def listed(*members: tuple) -> dict:
    """What a manifest says of these (name, bytes, …)."""
    return {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), "mode": 0o600}
        for name, data, *_ in members
    }


def tar(file: Path, *members: tuple, manifest: dict | None = None, is_first: bool = False) -> Path:
    """An archive with a sound manifest of these (name, bytes, type), changed by manifest; is_first: where format 1 has it."""
    body = archive.manifest_of(listed(*members)) | (manifest or {})
    told = ("manifest.json", json.dumps(body).encode(), tarfile.REGTYPE)
    with tarfile.open(file, "w") as opened:
        for name, data, kind in [told, *members] if is_first else [*members, told]:
            entry = tarfile.TarInfo(name)
            entry.size, entry.type, entry.linkname = len(data), kind, "/etc/passwd"
            opened.addfile(entry, io.BytesIO(data))
    return file


SOUND = ("state/api-key", b"lb-x\n", tarfile.REGTYPE)


@pytest.mark.parametrize(
    "name", ["../api-key", "state/../../x", "/etc/cron.d/x", "state/./x", "state//x", "state\\..\\x"]
)
def test_a_path_that_leaves_the_folder_is_refused_by_name(tmp_path, name):
    with pytest.raises(Refusal, match="leaves the folder") as refused:
        archive.read(tar(tmp_path / "b.tar", SOUND, (name, b"x", tarfile.REGTYPE)))
    assert repr(name) in str(refused.value)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE])
def test_what_is_not_a_plain_file_is_refused(tmp_path, kind):
    with pytest.raises(Refusal, match="'state/keys' is not a plain file"):
        archive.read(tar(tmp_path / "b.tar", SOUND, ("state/keys", b"", kind)))


def test_a_newer_format_is_refused_with_the_version_that_reads_it(tmp_path):
    with pytest.raises(Refusal, match=r"format 3, written by lingbi 9\.9\.9; this one reads formats up to 2"):
        archive.read(tar(tmp_path / "b.tar", SOUND, manifest={"format": 3, "lingbi": "9.9.9"}))


def test_an_archive_of_the_first_format_is_read(tmp_path):
    _, items = archive.read(tar(tmp_path / "b.tar", SOUND, manifest={"format": 1}, is_first=True))
    assert [(item.name, item.data) for item in items] == [("state/api-key", b"lb-x\n")]


def test_bytes_that_are_not_those_of_the_manifest_are_refused_by_name(tmp_path):
    other = listed(("state/api-key", b"lb-y\n"))
    with pytest.raises(Refusal, match="'state/api-key' does not have the SHA-256"):
        archive.read(tar(tmp_path / "b.tar", SOUND, manifest={"files": other}))
    with pytest.raises(Refusal, match="'state/api-key' is not in the manifest"):
        archive.read(tar(tmp_path / "b.tar", SOUND, manifest={"files": {}}))
    with pytest.raises(Refusal, match="'state/api-key' is missing"):
        archive.read(tar(tmp_path / "b.tar", manifest={"files": other}))
    with pytest.raises(Refusal, match="'state/api-key' stands there twice"):
        archive.read(tar(tmp_path / "b.tar", SOUND, SOUND))
    with pytest.raises(Refusal, match="'weights/x' is of no known kind"):
        archive.read(tar(tmp_path / "b.tar", ("weights/x", b"", tarfile.REGTYPE)))


def test_only_accounts_and_uploads_may_be_large(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "MAX_BYTES", 1000)
    large = b"x" * 1001
    for name in ("state/files/file-1", "volume/state/accounts/accounts.db"):
        _, (item,) = archive.read(tar(tmp_path / "b.tar", (name, large, tarfile.REGTYPE)))
        assert item.size == 1001
    with pytest.raises(Refusal, match="'state/keys' has 1001 bytes"):
        archive.read(tar(tmp_path / "b.tar", ("state/keys", large, tarfile.REGTYPE)))
    with pytest.raises(Refusal, match="state/keys has 0 MiB"), archive.written(tmp_path / "c.tar") as writer:
        writer.add_bytes("state/keys", 0o600, large)
    assert [file.name for file in tmp_path.iterdir()] == ["b.tar"]


@pytest.mark.parametrize("change", [lambda data: b"", lambda data: b"no tar" * 200, lambda data: data[:700]])
def test_what_is_no_whole_backup_is_refused(tmp_path, change):
    file = tar(tmp_path / "b.tar", SOUND)
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(Refusal, match=r"b\.tar"):
        archive.read(file)
    with pytest.raises(Refusal, match="cannot be read"):
        archive.read(tmp_path / "none")


def test_a_refused_archive_changes_nothing(machine, other, tmp_path):
    file = tar(tmp_path / "b.tar", SOUND, ("files/LINGBI_KEYS_FILE", b"x", tarfile.REGTYPE))
    before = sorted(other.rglob("*"))
    done = machine.run(other, "host.backup.restore", file)
    assert done.returncode == 2 and "'files/LINGBI_KEYS_FILE'" in done.stderr and "Traceback" not in done.stderr
    assert sorted(other.rglob("*")) == before


FAILING = """\
#!/bin/sh
head -c 3000 "{folder}/whole"
echo "no space left" >&2
exit {status}
"""


@pytest.mark.parametrize("status", [1, 0])
def test_a_container_that_ends_early_is_told_in_its_words(machine, tmp_path, monkeypatch, status):
    tar(machine.folder / "whole", ("keys", b"x" * 5000, tarfile.REGTYPE))
    monkeypatch.setenv("PATH", f"{machine.folder}:/usr/bin:/bin")
    machine.have("docker", FAILING.format(folder=machine.folder, status=status))
    with pytest.raises(StartFailed, match="no space left"), archive.written(tmp_path / "b.tar") as writer:
        volumes.unpack(["exec", "server"], writer.add)
    with pytest.raises(StartFailed, match="no space left"):
        _, items = archive.read(tar(tmp_path / "c.tar", ("state/files/x", b"x" * 5_000_000, tarfile.REGTYPE)))
        volumes.feed(["run", "weights"], {item.name: item for item in items})
    assert not (tmp_path / "b.tar").exists()
