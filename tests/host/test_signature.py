"""An archive is used as its signer made it, or refused by what is wrong with it; keys and signatures are OpenSSH's own."""

import io
import json
import subprocess
import tarfile

import pytest

from host.bundle import command, images, statement
from host.bundle.packing import Archive
from host.errors import Refusal
from tests.conftest import ROOT
from tests.host import archives
from tests.host.archives import DIGESTS, archive, members, pack, signed, signers_of

LISTED = members("1.0.0")


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return {name: archives.make_key(folder, name) for name in ("release", "stranger")}


@pytest.fixture
def release(keys):
    return keys["release"]


def refusal(path, signers, version="") -> str:
    with pytest.raises(Refusal) as refused:
        statement.verify(path, signers, version)
    return str(refused.value)


def altered(text: bytes, at: int = 0) -> bytes:
    """With one bit of one byte turned."""
    return text[:at] + bytes([text[at] ^ 1]) + text[at + 1 :]


def test_who_signed_it_and_what_is_in_it_are_told(tmp_path, release):
    verified = statement.verify(archive(tmp_path / "x.tar", "1.0.0", release), signers_of(release), "1.0.0")
    assert (verified.signer, verified.version) == ("release@lab", "1.0.0")
    assert {name: image["digests"] for name, image in verified.images.items()} == {
        name: [digest] for name, digest in DIGESTS.items()
    }
    assert len(verified.saved_sha256) == 64


@pytest.mark.parametrize("name", LISTED)
def test_one_byte_of_a_file_is_refused_by_its_name_and_both_checksums(tmp_path, release, name):
    whole = signed(members("1.0.0"), release)
    file = pack(tmp_path / "x.tar", whole | {name: altered(whole[name], len(whole[name]) // 2)})
    said = refusal(file, signers_of(release))
    was, listed = said.partition(f"{name} was altered: its SHA-256 is ")[2].split(f", and {statement.SUMS} says ")
    assert was != listed and statement.parsed(whole[statement.SUMS].decode())[name] == listed
    assert f"{name} was altered" in refusal(file, None)


@pytest.mark.parametrize("name", [statement.SUMS, statement.SIGNATURE])
def test_one_byte_of_the_list_or_of_its_signature_is_refused(tmp_path, release, name):
    whole = signed(members("1.0.0"), release)
    file = pack(tmp_path / "x.tar", whole | {name: altered(whole[name], len(whole[name]) // 2)})
    assert "the signature does not fit" in refusal(file, signers_of(release))


def test_a_list_that_was_made_to_fit_what_was_altered_is_refused(tmp_path, release):
    whole = signed(members("1.0.0"), release)
    forged = signed(members("1.0.0") | {"scripts/up": b"#!/bin/sh\nrm -rf /\n"}, None)
    file = pack(tmp_path / "x.tar", forged | {statement.SIGNATURE: whole[statement.SIGNATURE]})
    assert statement.verify(file, None).version == "1.0.0"  # checksums alone prove nothing
    assert "the signature does not fit" in refusal(file, signers_of(release))


def test_another_key_is_refused_by_its_fingerprint_and_who_is_trusted_is_told(tmp_path, keys):
    file = archive(tmp_path / "x.tar", "1.0.0", keys["stranger"])
    said = refusal(file, signers_of(keys["release"]))
    public = keys["stranger"].with_suffix(".pub")
    fingerprint = subprocess.run(["ssh-keygen", "-lf", public], capture_output=True, text=True).stdout.split()[1]
    assert f"signed by another key, ED25519 key {fingerprint}" in said and "trusts release@lab" in said


def test_an_archive_without_a_signature_is_refused_where_signers_are_given(tmp_path, release):
    file = archive(tmp_path / "x.tar", "1.0.0")
    assert "it is not signed: there is no SHA256SUMS.sig" in refusal(file, signers_of(release))
    assert statement.verify(file, None).signer == ""


def test_the_signature_of_another_version_is_refused(tmp_path, release):
    other = signed(members("0.9.0"), release)
    file = pack(tmp_path / "x.tar", signed(members("1.0.0"), None) | {statement.SIGNATURE: other[statement.SIGNATURE]})
    assert "is of another archive" in refusal(file, signers_of(release))


def test_an_older_archive_is_not_taken_for_the_version_that_was_asked_for(tmp_path, release):
    file = archive(tmp_path / "lingbi-1.1.0.tar", "1.0.0", release)
    assert "it is version 1.0.0, and 1.1.0 was asked for" in refusal(file, signers_of(release), "1.1.0")


def test_a_signature_for_something_else_is_none_for_us(tmp_path, release):
    whole = signed(members("1.0.0"), None)
    mail = subprocess.run(
        ["ssh-keygen", "-Y", "sign", "-n", "email", "-f", release], input=whole[statement.SUMS], capture_output=True
    )
    file = pack(tmp_path / "x.tar", whole | {statement.SIGNATURE: mail.stdout})
    assert "namespace does not match" in refusal(file, signers_of(release))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("release@lab {key}", ""),
        ('*@lab namespaces="lingbi" {key}', ""),
        ('release@lab namespaces="git" {key}', "not permitted for use in signature namespace"),
        ('release@lab valid-before="20200101" {key}', "has expired"),
        ("# {key}", "trusts nobody"),
    ],
)
def test_what_a_file_of_signers_says_of_a_key_counts(tmp_path, release, line, reason):
    key = " ".join(release.with_suffix(".pub").read_text().split()[:2])
    (tmp_path / "signers").write_text(line.format(key=key) + "\n")
    file = archive(tmp_path / "x.tar", "1.0.0", release)
    if reason:
        assert reason in refusal(file, tmp_path / "signers")
    else:
        assert statement.verify(file, tmp_path / "signers").signer.endswith("@lab")


def test_files_that_were_added_removed_or_doubled_are_named(tmp_path, release):
    whole = signed(members("1.0.0"), release)
    added = pack(tmp_path / "added.tar", whole | {"compose.override.yaml": b"x"})
    assert "compose.override.yaml is not listed in SHA256SUMS" in refusal(added, signers_of(release))
    lost = pack(tmp_path / "lost.tar", {name: text for name, text in whole.items() if name != "compose.yaml"})
    assert "compose.yaml is missing" in refusal(lost, signers_of(release))
    with (tmp_path / "twice.tar").open("w+b") as stream:
        twice = Archive(stream, "lingbi")
        for name, text in [*whole.items(), ("scripts/up", b"another")]:
            twice.stream(name, io.BytesIO(text))
        twice.end()
    assert "lingbi/scripts/up is not as scripts/bundle writes it" in refusal(
        tmp_path / "twice.tar", signers_of(release)
    )


@pytest.mark.parametrize(
    "member",
    [
        {"name": "lingbi/x", "type": tarfile.SYMTYPE, "linkname": "/etc/passwd"},
        {"name": "lingbi/folder", "type": tarfile.DIRTYPE},
        {"name": "lingbi/../x"},
        {"name": "/etc/x"},
        {"name": "other/x"},
        {"name": "lingbi/" + "x" * 200},
        {"name": "lingbi/x", "mode": 0o4755},
    ],
    ids=lambda member: f"{member.get('type', b'file')}{member['name'][:12]}",
)
def test_what_else_a_tar_file_can_hold_is_refused(tmp_path, release, member):
    """What Python and tar could read as two things, what is written elsewhere, what gives another user's rights."""
    whole = signed(members("1.0.0"), release)
    with tarfile.open(tmp_path / "x.tar", "w") as made:
        for name, text in whole.items():
            info = tarfile.TarInfo(f"lingbi/{name}")
            info.size = len(text)
            made.addfile(info, io.BytesIO(text))
        info = tarfile.TarInfo()
        for field, value in member.items():
            setattr(info, field, value)
        made.addfile(info)
    assert "is not as scripts/bundle writes it" in refusal(tmp_path / "x.tar", signers_of(release))


def test_an_archive_that_is_cut_or_goes_on_is_refused(tmp_path, release):
    text = archive(tmp_path / "x.tar", "1.0.0", release).read_bytes()
    for name, other in {"cut": text[:-4096], "short": text[:100], "empty": b"", "longer": text + text}.items():
        (tmp_path / name).write_bytes(other)
        assert refusal(tmp_path / name, signers_of(release)).startswith(str(tmp_path / name)), name
    assert "cannot be read as an archive" in refusal(tmp_path / "none.tar", None)
    (tmp_path / "plain.tar").write_bytes(pack(tmp_path / "y.tar", {"manifest.json": b"[]"}).read_bytes())
    assert "it is no archive of scripts/bundle" in refusal(tmp_path / "plain.tar", None)


def test_an_unpacked_archive_is_verified_too(tmp_path, release):
    with tarfile.open(archive(tmp_path / "x.tar", "1.0.0", release)) as packed:
        packed.extractall(tmp_path, filter="data")
    folder = tmp_path / "lingbi-1.0.0"
    assert statement.verify(folder, signers_of(release), "1.0.0").signer == "release@lab"
    (folder / ".env").write_text("COMPOSE_FILE=evil.yaml\n")
    assert ".env is not listed" in refusal(folder, signers_of(release))
    (folder / ".env").unlink()
    (folder / "compose.yaml").write_text("spoiled")
    assert "compose.yaml was altered" in refusal(folder, signers_of(release))
    (folder / "compose.yaml").unlink()
    (folder / "compose.yaml").symlink_to(tmp_path / "x.tar")
    assert "is a link" in refusal(folder, signers_of(release))


def test_openssh_and_sha256sum_verify_it_without_us(tmp_path, release):
    """As SECURITY.md says."""
    with tarfile.open(archive(tmp_path / "x.tar", "1.0.0", release)) as packed:
        packed.extractall(tmp_path, filter="data")
    line = f"ssh-keygen -Y verify -f {signers_of(release)} -I release@lab -n lingbi -s SHA256SUMS.sig <SHA256SUMS"
    done = subprocess.run(
        f"{line} && sha256sum --check --strict --quiet SHA256SUMS", shell=True, cwd=tmp_path / "lingbi-1.0.0"
    )
    assert done.returncode == 0


class TestCommand:
    def run(self, *arguments, **options):
        return subprocess.run(
            [ROOT / "scripts/signature", *map(str, arguments)], capture_output=True, text=True, **options
        )

    def test_a_new_key_signs_for_those_who_got_its_line(self, tmp_path):
        made = self.run("new-key", tmp_path / "key", "--name", "a@lab", input="\n\n", start_new_session=True)
        assert made.returncode == 0 and made.stdout.startswith(
            'a@lab namespaces="lingbi,git" ssh-ed25519 '
        ), made.stderr
        assert (tmp_path / "key").stat().st_mode & 0o777 == 0o600
        (tmp_path / "signers").write_text(made.stdout)
        file = archive(tmp_path / "x.tar", "1.0.0", tmp_path / "key")
        done = self.run("verify", file, "--signers", tmp_path / "signers")
        assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: version 1.0.0, signed by a@lab\n", "")
        again = self.run("new-key", tmp_path / "key")
        assert again.returncode == 2 and "is there already" in again.stderr

    def test_without_signers_it_says_that_nobodys_signature_was_verified(self, tmp_path):
        done = self.run("verify", archive(tmp_path / "x.tar", "1.0.0"), "--json")
        assert done.returncode == 0 and json.loads(done.stdout)["images"]["ui"]["digests"] == [DIGESTS["ui"]]
        assert done.stderr.splitlines() == ["nobody's signature was verified: no --signers were given"]

    def test_files_that_are_not_there_are_named(self, tmp_path, release):
        done = self.run("verify", archive(tmp_path / "x.tar", "1.0.0", release), "--signers", tmp_path / "none")
        assert done.returncode == 2 and f"{tmp_path / 'none'}: no such file" in done.stderr
        with pytest.raises(Refusal, match="no such file; make a key with scripts/signature new-key"):
            archive(tmp_path / "y.tar", "1.0.0", tmp_path / "none")

    def test_a_machine_without_openssh_is_told_what_to_install(self, tmp_path, release, monkeypatch):
        file = archive(tmp_path / "x.tar", "1.0.0", release)
        monkeypatch.setenv("PATH", str(tmp_path))
        assert "apt-get install openssh-client" in refusal(file, signers_of(release))

    def test_an_image_of_this_engine_that_is_another_one_is_named(self, tmp_path, monkeypatch, capsys):
        file = str(archive(tmp_path / "x.tar", "1.0.0"))
        here = {f"lingbi/{name}:1.0.0": {"Id": digest} for name, digest in DIGESTS.items()}
        monkeypatch.setattr(images, "inspect", here.get)
        assert command.main(["verify", file, "--engine"]) == 0
        here["lingbi/ui:1.0.0"] = {"Id": DIGESTS["server"]}
        del here["lingbi/gateway:1.0.0"]
        assert command.main(["verify", file, "--engine"]) == 2
        said = capsys.readouterr().err
        assert f"lingbi/ui:1.0.0 has the digest {DIGESTS['server']}, and what was signed has {DIGESTS['ui']}" in said
        assert "lingbi/gateway:1.0.0 is not here" in said and "server:1.0.0" not in said


CONFIG, MANIFEST = "sha256:" + "c" * 64, "sha256:" + "d" * 64


@pytest.mark.parametrize(
    ("config", "name"),
    [
        (f"blobs/sha256/{'c' * 64}", "docker.io/lingbi/server:1.0.0"),
        (f"{'c' * 64}.json", "docker.io/lingbi/server:1.0.0"),
        (f"blobs/sha256/{'c' * 64}", "lingbi/server:1.0.0"),
    ],
)
def test_an_image_has_the_digests_of_both_stores(config, name):
    manifest = [{"Config": config, "RepoTags": ["lingbi/server:1.0.0"]}]
    index = {"manifests": [{"digest": MANIFEST, "annotations": {images.NAME: name}}, {"digest": "sha256:other"}]}
    assert images.digests_of(manifest, index) == {"lingbi/server:1.0.0": {CONFIG, MANIFEST}}
    assert images.digests_of(manifest, {}) == {"lingbi/server:1.0.0": {CONFIG}}


def test_an_image_is_pushed_where_the_registry_of_its_name_has_it():
    image = {"Id": CONFIG, "RepoDigests": [f"registry.lab:5000/lingbi/server@{MANIFEST}"]}
    assert images.is_pushed("registry.lab:5000/lingbi/server:1.0.0", image)
    assert not images.is_pushed("lingbi/server:1.0.0", image)
    assert images.own_digests(image) == {CONFIG, MANIFEST}
