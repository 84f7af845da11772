"""What holds for each image: its user, its files, its labels, its bill of materials, its size."""

import importlib.util
import json
import re
import shutil
from urllib.parse import unquote

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.conftest import ROOT
from tests.containers import bases, images
from tests.containers.images import NAMES, bytes_of, docker, inspect
from tests.images.conftest import python, shell
from tests.test_style import tracked_text

MB = 1_000_000
LARGEST = {"server": 6500 * MB, "ui": 500 * MB}
OVER_BASE = {"gateway": 80 * MB}


@pytest.fixture(params=NAMES)
def name(request):
    return request.param


@pytest.fixture
def image(name, docker_engine, request):
    return request.getfixturevalue(f"{name}_image")


def test_it_runs_as_a_fixed_ordinary_user(image):
    config = inspect(image)["Config"]
    assert config["User"] == "10001:10001"
    assert config["StopSignal"] in ("SIGTERM", "SIGQUIT") and config["Healthcheck"]["Test"][0] == "CMD"


def test_it_says_what_it_is(image, name):
    labels = inspect(image)["Config"]["Labels"]
    assert labels["org.opencontainers.image.title"] == f"lingbi {name}"
    assert labels["org.opencontainers.image.version"] == images.VERSION
    assert labels["org.opencontainers.image.licenses"] == "Apache-2.0"


def test_no_file_gives_another_users_rights(image):
    assert shell(image, "find / -xdev -type f -perm /6000") == ""


def test_nothing_to_build_with_and_no_leftovers_of_building(image):
    found = shell(
        image,
        "command -v gcc cc g++ make uv git; find / -xdev -path /proc -prune -o "
        "\\( -path '/var/lib/apt/lists/*_Packages' -o -path '/var/cache/apt/*.deb' -o -path '/root/.cache/*' "
        "-o -name '*.whl' -o -path '/locks/*' -o -path /run/secrets/ca \\) -print | grep -v /ensurepip/ ; true",
    )
    assert found == ""


def test_its_code_cannot_be_changed_by_its_user(image):
    assert shell(image, "find /opt -xdev \\( -user 10001 -o -perm -o+w \\) ! -type l") == ""


def test_all_that_its_look_at_health_imports_is_there_compiled(image):
    """Elsewhere Python keeps what it has compiled; on a read-only root it compiles again each time."""
    module = inspect(image)["Config"]["Healthcheck"]["Test"][-1]
    code = f"import {module}, pathlib, sys; found = [getattr(m, '__cached__', None) for m in sys.modules.values()]; "
    code += "print(len(found), *[path for path in found if path and not pathlib.Path(path).exists()])"
    imported, *missing = python(image, code).split()
    assert int(imported) > 40 and missing == []


def test_it_is_small_enough(image, name):
    assert bytes_of(image) <= LARGEST.get(name, bytes_of(image))
    if name in OVER_BASE:
        [base] = bases.external_bases(ROOT / "docker" / name / "Dockerfile")
        assert bytes_of(image) - bytes_of(bases.ensure_stand_in(base)) <= OVER_BASE[name]


class TestBillOfMaterials:
    def read(self, image, name) -> dict:
        return json.loads(shell(image, f"cat /usr/share/sbom/{name}.cdx.json"))

    def test_it_is_valid_cyclonedx(self, image, name):
        from cyclonedx.schema import SchemaVersion
        from cyclonedx.validation.json import JsonStrictValidator

        fault = JsonStrictValidator(SchemaVersion.V1_5).validate_str(json.dumps(self.read(image, name)))
        assert fault is None, fault

    def test_it_lists_what_is_installed(self, image, name):
        listed = self.read(image, name)["components"]
        debian = {(item["name"], item["version"]) for item in listed if item["purl"].startswith("pkg:deb/")}
        installed = shell(image, "dpkg-query -Wf '${db:Status-Abbrev} ${Package} ${Version}\\n' | sed -n 's/^ii *//p'")
        assert debian == {tuple(line.split()) for line in installed.splitlines()}
        packages = {(item["name"], item["version"]) for item in listed if item["purl"].startswith("pkg:pypi/")}
        code = "from importlib.metadata import distributions as d\nfor i in d(): print(i.metadata['Name'], i.version)"
        seen = {tuple(line.split()) for line in python(image, code).splitlines()} if name != "gateway" else set()
        assert packages == seen

    def test_it_lists_the_lock(self, image, name):
        lock = ROOT / "docker" / name / "requirements.lock"
        if name == "gateway":
            assert not lock.exists()
            return
        pins = [Requirement(line) for line in re.findall(r"^([a-z0-9._-]+==[^\\\n]+)", lock.read_text(), re.M)]
        python = {"server": "3.10", "ui": "3.13"}[name]
        here = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
        pinned = {(pin.name, str(pin.specifier)[2:]) for pin in pins if not pin.marker or pin.marker.evaluate(here)}
        listed = {(canonicalize_name(item["name"]), item["version"]) for item in self.read(image, name)["components"]}
        assert len(pinned) > 40 and pinned <= {(package, unquote(version)) for package, version in listed}

    def test_the_same_packages_give_the_same_bytes(self):
        spec = importlib.util.spec_from_file_location("bill", ROOT / "docker/bill_of_materials.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        one, two = ({"bom-ref": name, "name": name} for name in "ab")
        assert module.bill("x", [one, two]) == module.bill("x", [two, one, two])
        assert module.bill("x", [one])["serialNumber"] != module.bill("x", [two])["serialNumber"]


def test_stand_ins_are_used_in_tests_only():
    names = [base for name in NAMES for base in bases.external_bases(ROOT / "docker" / name / "Dockerfile")]
    assert sorted(base.split("@")[0].split(":")[0] for base in names) == ["nginx", "nvidia/cuda", "python"]
    for file, text in tracked_text().items():
        if "tests" not in file.relative_to(ROOT).parts:
            assert bases.PREFIX not in text and "docker-image://" not in text, file


def test_every_base_has_a_version_and_a_digest_or_says_why_not():
    for name in NAMES:
        text = (ROOT / "docker" / name / "Dockerfile").read_text()
        for base in bases.external_bases(ROOT / "docker" / name / "Dockerfile"):
            assert ":" in base and not base.endswith(":latest")
            assert "@sha256:" in base or "# No digest yet: scripts/digests" in text


def test_two_builds_of_one_commit_hold_the_same(gateway_image):
    """All files but the one that holds the day of the build; the layers' times differ, since their files' times do."""
    again = f"{images.PREFIX}again:{images.VERSION}"
    docker(*images.build_command("gateway", "--no-cache", f"--tag={again}"), timeout=600)
    listing = "find / -xdev -type f ! -path '/proc/*' ! -path '/sys/*' ! -name 'shadow*' ! -path '/etc/host*' \
        ! -path /etc/resolv.conf -exec sha256sum {} + | sort -k2"
    try:
        assert shell(gateway_image, listing) == shell(again, listing)
    finally:
        docker("rmi", "--force", again)


@pytest.mark.parametrize("name", NAMES)
def test_a_change_of_our_code_moves_little_and_is_built_quickly(name, docker_engine, request, tmp_path):
    """Only the layers of our code are new, and they are small."""
    import time

    request.getfixturevalue(f"{name}_image")
    before = inspect(images.build(name))["RootFS"]["Layers"]  # from the cache as it is now
    context = tmp_path / "context"
    shutil.copytree(ROOT / "docker", context / "docker", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / ".dockerignore", context)
    package = next(path.parent for path in (context / "docker" / name).glob("*/__init__.py"))
    (package / "changed.py").write_text("CHANGED = True\n")
    changed = f"{images.PREFIX}changed-{name}:{images.VERSION}"
    start = time.monotonic()
    docker(*images.build_command(name, f"--tag={changed}", context=context), timeout=300)
    took = time.monotonic() - start
    try:
        new = [layer for layer in inspect(changed)["RootFS"]["Layers"] if layer not in before]
        sizes = docker("history", "--no-trunc", "--format={{.CreatedBy}}\t{{.Size}}", "--human=false", changed).stdout
        code = [
            int(line.split("\t")[1]) for line in sizes.splitlines() if "COPY" in line and f"/{package.name} " in line
        ]
        assert len(new) == 1 and sum(code) <= 5 * MB and took <= 15, (new, sizes, took)
    finally:
        docker("rmi", "--force", changed)
