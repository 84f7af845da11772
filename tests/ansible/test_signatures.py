"""Images that no trusted signer signed are refused on the controller: the hosts here cannot be reached, and are not asked."""

import re

import pytest
import yaml

from tests.ansible import roles, variables
from tests.ansible.play import played
from tests.host.archives import DIGESTS, archive, make_key, members, pack, signed, signers_of

NOWHERE = {"ansible_host": "192.0.2.1"}  # RFC 5737: nobody's
SHOWN = {  # tasks after those of the playbook: what the hosts would be told
    "hosts": "all",
    "gather_facts": False,
    "tasks": [{"name": "Show", "ansible.builtin.debug": {"msg": "signed {{ image_signed | to_json }}"}}],
}


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    folder = tmp_path_factory.mktemp("keys")
    return {name: make_key(folder, name) for name in ("release", "stranger")}


@pytest.fixture
def verify(controller, keys, tmp_path):
    """Plays the part that verifies, and tells (exit status, output in one line)."""

    def play(*options, **given):
        hosts = {"lingbi_servers": {"hosts": {"gpu1": NOWHERE}}, "lingbi_gateways": {"hosts": {"gate1": NOWHERE}}}
        common = {
            "lingbi_version": "1.0.0",
            "lingbi_signers_file": str(signers_of(keys["release"])),
            "ansible_user": "x",
        }
        (tmp_path / "lab.yml").write_text(yaml.safe_dump({"all": {"vars": common | given, "children": hosts}}))
        part = {"ansible.builtin.import_playbook": str(variables.ROOT / "ansible/playbooks/verify.yml")}
        (tmp_path / "play.yml").write_text(yaml.safe_dump([part, SHOWN]))
        done = played(controller, tmp_path, tmp_path / "play.yml", "-i", tmp_path / "lab.yml", *options)
        assert re.search(r"changed=[1-9]|unreachable=[1-9]", done.stdout) is None, done.stdout
        return done.returncode, " ".join((done.stdout + done.stderr).replace("\\", "").split())

    return play


def test_what_is_pulled_and_what_is_loaded_is_told_to_the_hosts(verify, keys, tmp_path):
    (tmp_path / "digests").mkdir()
    archive(tmp_path / "digests/lingbi-1.0.0-digests.tar", "1.0.0", keys["release"])
    status, said = verify("--check")
    assert status == 0 and said.count("signed {") == 2 and all(digest in said for digest in DIGESTS.values()), said
    file = archive(tmp_path / "images.tar", "1.0.0", keys["release"])
    status, said = verify(lingbi_image_archive=str(file))
    assert status == 0 and re.search('"saved_sha256": "[0-9a-f]{64}"', said), said


def test_without_signers_it_says_once_that_nothing_is_verified_and_goes_on(verify):
    status, said = verify(lingbi_signers_file="", lingbi_image_archive="/nowhere.tar")
    assert (
        status == 0
        and said.count("so nobody's signature of the images is verified") == 1
        and said.count("signed {}") == 2
    )


def test_what_no_trusted_signer_signed_is_refused_by_name(verify, keys, tmp_path):
    whole = signed(members("1.0.0"), keys["release"])
    made = {
        "unsigned": archive(tmp_path / "unsigned.tar", "1.0.0"),
        "strange": archive(tmp_path / "strange.tar", "1.0.0", keys["stranger"]),
        "altered": pack(tmp_path / "altered.tar", whole | {"images.tar": b"what docker save wrotf"}),
        "old": archive(tmp_path / "old.tar", "0.9.0", keys["release"]),
    }
    words = {
        "unsigned": "it is not signed: there is no SHA256SUMS.sig",
        "strange": "signed by another key, ED25519 key SHA256:",
        "altered": "images.tar was altered: its SHA-256 is",
        "old": "it is version 0.9.0, and 1.0.0 was asked for",
    }
    for name, file in made.items():
        status, said = verify(lingbi_image_archive=str(file))
        assert status != 0 and words[name] in said and "nothing was changed on any host" in said, said
        assert f"{file}: " in said and "Show" not in said
    status, said = verify()
    assert status != 0 and "digests/lingbi-1.0.0-digests.tar cannot be read" in said


def test_a_rollback_needs_an_archive_only_to_load_from(verify, keys, tmp_path):
    """Its images are named by the digests of what ran here; an archive may be of the newer version, but not anybody's."""
    recorded = {"server": "registry.lab/server@sha256:1"}
    assert verify(image_digests=recorded)[0] == 0
    newer = archive(tmp_path / "newer.tar", "1.1.0", keys["release"])
    assert verify(image_digests=recorded, lingbi_image_archive=str(newer))[0] == 0
    strange = archive(tmp_path / "strange.tar", "1.1.0", keys["stranger"])
    status, said = verify(image_digests=recorded, lingbi_image_archive=str(strange))
    assert status != 0 and "signed by another key" in said


@pytest.mark.parametrize("playbook", ["site", "deploy", "rollback"])
def test_it_is_verified_before_anything_is_installed_or_prepared(playbook):
    parts = [play["ansible.builtin.import_playbook"] for play in roles_of(playbook)]
    before = parts[: parts.index("playbooks/verify.yml")]
    assert set(before) <= {"playbooks/judge.yml", "playbooks/same_version.yml", "playbooks/find_version.yml"}


def roles_of(playbook):
    return yaml.safe_load((roles.ANSIBLE / f"{playbook}.yml").read_text())
