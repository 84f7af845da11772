"""The file of logins: its mode, whatever was there."""

from lingbi_ui.logins import Logins, change


def test_a_file_that_all_can_read_is_its_owners_alone_after_a_change(tmp_path):
    file = tmp_path / "logins"
    file.write_text("")
    file.chmod(0o644)
    password = change(file, "add", "alice")
    assert file.stat().st_mode & 0o777 == 0o600 and Logins(file).is_right("alice", password)
    file.chmod(0o644)
    change(file, "add", "bob")
    assert file.stat().st_mode & 0o777 == 0o600


def test_who_removes_a_login_is_told_how_its_name_is_freed(tmp_path):
    change(tmp_path / "logins", "add", "alice")
    assert "`scripts/usage erase --key ui/alice` removes what" in change(tmp_path / "logins", "remove", "alice")
