"""API keys: hashed, named, re-read, limited."""

import hmac
import os
import stat

import pytest

from lingbi.cli import key as command
from lingbi.errors import ConfigurationError
from lingbi.http import auth
from lingbi.http.auth import Key, KeyRing, add_key, digest, ensure_keys, parse_keys, read_keys, remove_key, save_keys


def test_a_key_is_made_once_and_only_its_hash_is_in_the_key_file(tmp_path):
    file, own = tmp_path / "new" / "keys", tmp_path / "new" / "api-key"
    made = ensure_keys(file, own)
    plain = own.read_text().strip()
    assert len(plain) > 40 and made == [Key("default", digest(plain.encode()))] == ensure_keys(file, own)
    assert plain not in file.read_text()
    assert {stat.S_IMODE(f.stat().st_mode) for f in (file, own)} == {0o600}


def test_the_default_key_follows_the_operators_own_copy(tmp_path):
    file, own = tmp_path / "keys", tmp_path / "api-key"
    ensure_keys(file, own)
    add_key(file, "ui")
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


def test_a_ring_follows_its_file_and_keeps_its_keys_when_the_file_breaks(tmp_path):
    file, now = tmp_path / "keys", [0.0]
    first = add_key(file, "first", 3)
    ring = KeyRing(file, clock=lambda: now[0])
    assert ring.find(first.encode()).limit == 3 and ring.find(b"") is None
    second = add_key(file, "second")
    now[0] += 2
    assert ring.find(second.encode()).name == "second"
    file.write_text("broken")
    now[0] += 2
    assert ring.find(first.encode())
    save_keys(file, [Key("third", digest(b"x"))])
    now[0] += 2
    assert ring.find(first.encode()) is None and ring.find(b"x")


def test_a_key_file_that_vanished_changes_nothing_until_it_is_back_and_an_empty_one_removes_all(tmp_path, caplog):
    file, now = tmp_path / "keys", [0.0]
    save_keys(file, [Key("one", digest(b"x"))])
    ring = KeyRing(file, clock=lambda: now[0])

    def find(key: bytes):
        now[0] += 2
        return ring.find(key)

    os.unlink(file)
    assert find(b"x") and find(b"x")
    (line,) = (record.message for record in caplog.records if record.levelname == "ERROR")
    assert str(file) in line and "gone" in line
    save_keys(file, [Key("two", digest(b"y"))])
    assert find(b"x") is None and find(b"y")
    file.write_text("# nobody\n")
    assert find(b"y") is None and "nobody is let in" in caplog.records[-1].message
    save_keys(file, [Key("two", digest(b"y"))])
    assert find(b"y")


def test_every_key_is_compared_whole_in_constant_time(tmp_path, monkeypatch):
    save_keys(tmp_path / "keys", [Key(name, digest(name.encode())) for name in "abc"])
    seen = []
    monkeypatch.setattr(auth.hmac, "compare_digest", lambda a, b: seen.append(len(a)) or a == b)
    assert KeyRing(tmp_path / "keys").find(b"a").name == "a" and seen == [64] * 3
    assert hmac is auth.hmac


def test_scripts_key_adds_lists_and_removes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LINGBI_STATE_DIR", str(tmp_path))
    assert command.main(["add", "ui", "--limit", "4"]) == 0 and command.main(["add", "ops"]) == 0
    made = capsys.readouterr().out.split()
    assert [key.digest for key in read_keys(tmp_path / "keys")] == [digest(key.encode()) for key in made]
    assert command.main(["list"]) == 0 and capsys.readouterr().out == "ui  4\nops  -\n"
    assert command.main(["add", "ui"]) == 2 and command.main(["add", "a b"]) == 2
    assert command.main(["remove", "ops"]) == 0 and command.main(["remove", "ops"]) == 2
    assert command.main(["remove", "ui"]) == 2, "the last key stays"
    with pytest.raises(ConfigurationError):
        remove_key(tmp_path / "keys", "nobody")
