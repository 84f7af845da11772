"""The key file of a host, and the plaintext copies beside it."""

import os
import stat

import pytest

from lingbi.accounts.key_file import (
    Key,
    check_keys,
    digest,
    ensure_keys,
    ensure_page_key,
    parse_keys,
    read_keys,
)
from lingbi.accounts.ring import KeyRing
from lingbi.cli import key as command
from lingbi.errors import ConfigurationError
from tests.keys import add_to_file


def test_a_key_is_made_once_and_only_its_hash_is_in_the_key_file(tmp_path):
    file, own = tmp_path / "new" / "keys", tmp_path / "new" / "api-key"
    made = ensure_keys(file, own)
    plain = own.read_text().strip()
    assert len(plain) > 40 and made == [Key("default", digest(plain.encode()))] == ensure_keys(file, own)
    assert plain not in file.read_text()
    assert {stat.S_IMODE(f.stat().st_mode) for f in (file, own)} == {0o600}


@pytest.mark.parametrize("ensure", [ensure_keys, lambda file, copy: ensure_page_key(file, copy, 8)])
def test_a_plain_key_that_all_can_read_is_closed(tmp_path, ensure):
    tmp_path.chmod(0o755)
    file, copy = tmp_path / "keys", tmp_path / "copy"
    copy.write_text("lb-restored\n")
    for seen, expected in ((0o644, 0o600), (0o640, 0o640), (0o400, 0o400)):
        copy.chmod(seen)
        ensure(file, copy)
        assert stat.S_IMODE(copy.stat().st_mode) == expected
    assert digest(b"lb-restored") in {key.digest for key in read_keys(file)}


def test_a_mounted_key_of_somebody_else_is_left_as_it_is(tmp_path):
    copy = tmp_path / "copy"
    copy.write_text("lb-mounted\n")
    copy.chmod(0o644)
    os.chown(copy, 10001, 10001)
    ensure_keys(tmp_path / "keys", copy)
    assert stat.S_IMODE(copy.stat().st_mode) == 0o644


def test_the_default_key_follows_the_operators_own_copy(tmp_path):
    file, own = tmp_path / "keys", tmp_path / "api-key"
    ensure_keys(file, own)
    add_to_file(file, "ui")
    own.write_text("another\n")
    names = {key.name: key.digest for key in ensure_keys(file, own)}
    assert set(names) == {"default", "ui"} and names["default"] == digest(b"another")


def test_an_operator_may_take_the_plain_copy_away(tmp_path):
    file, own = tmp_path / "keys", tmp_path / "api-key"
    made = ensure_keys(file, own)
    own.unlink()
    assert ensure_keys(file, own) == made and not own.exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds no key"),
        ("# nothing\n", "holds no key"),
        ("secret\n", "line 1"),
        ("a sha256:12\n", "line 1"),
        (f"a sha256:{'0' * 64} none\n", "line 1"),
        (f"a sha256:{'0' * 64} 0\n", "line 1"),
        (f"a sha256:{'0' * 64}\na sha256:{'1' * 64}\n", "twice"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_refused_without_showing_it(text, message):
    with pytest.raises(ConfigurationError, match=message) as caught:
        parse_keys(text, "key file")
    assert "secret" not in str(caught.value)


def test_an_empty_plain_copy_is_refused(tmp_path):
    (tmp_path / "api-key").write_text("\n")
    with pytest.raises(ConfigurationError, match="is empty"):
        ensure_keys(tmp_path / "keys", tmp_path / "api-key")


def test_what_a_crash_left_empty_is_made_anew(tmp_path):
    file, own, page = tmp_path / "keys", tmp_path / "api-key", tmp_path / "ui-key"
    own.touch()
    page.touch()
    ensure_keys(file, own)
    ensure_page_key(file, page, 64)
    assert {key.name: key.limit for key in read_keys(file)} == {"default": None, "ui": 64}
    assert KeyRing(file).find(own.read_bytes().strip()).name == "default"
    assert KeyRing(file).find(page.read_bytes().strip()).name == "ui"


@pytest.mark.parametrize("left", [b"\0" * 47, b"\0"])
def test_zeros_that_a_crash_left_are_no_key(tmp_path, left):
    file, own = tmp_path / "keys", tmp_path / "api-key"
    own.write_bytes(left)
    ensure_keys(file, own)
    assert own.read_bytes().startswith(b"lb-") and KeyRing(file).find(left) is None
    assert KeyRing(file).find(own.read_bytes().strip()).name == "default"


@pytest.mark.parametrize("length", [1, 2, 3, 4, 20, 45])
def test_a_key_that_is_cut_off_is_named_and_never_served(tmp_path, length):
    file, own = tmp_path / "keys", tmp_path / "api-key"
    ensure_keys(file, own)
    before, whole = file.read_text(), own.read_bytes()
    own.write_bytes(whole[:length])
    for check in (lambda: ensure_keys(file, own), lambda: check_keys(file, own)):
        with pytest.raises(ConfigurationError, match=f"{own} is cut off after {length} bytes, as by a crash; write"):
            check()
    assert file.read_text() == before
    own.write_bytes(whole[:length] + b"\0" * (47 - length))
    with pytest.raises(ConfigurationError, match="is cut off"):
        ensure_keys(file, own)
    own.write_bytes(whole[:46])  # only the end of the line is missing, as an editor may leave it
    assert ensure_keys(file, own) == read_keys(file) and check_keys(file, own) == ["default"]


def test_where_a_key_file_was_emptied_one_can_be_added(tmp_path):
    file = tmp_path / "keys"
    file.touch()
    with pytest.raises(ConfigurationError, match="holds no key; add one with scripts/key"):
        check_keys(file, tmp_path / "api-key")
    add_to_file(file, "alice")
    assert check_keys(file, tmp_path / "api-key") == ["alice"]


def test_the_operators_key_is_shown_or_said_to_be_nowhere(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LINGBI_STATE_DIR", str(tmp_path))
    ensure_keys(tmp_path / "keys", tmp_path / "api-key")
    assert command.main(["show"]) == 0 and capsys.readouterr().out == (tmp_path / "api-key").read_text()
    (tmp_path / "api-key").unlink()
    assert command.main(["show"]) == 2 and "no key is kept in plain here" in capsys.readouterr().err
