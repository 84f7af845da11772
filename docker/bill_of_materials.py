"""Write the bill of materials (CycloneDX 1.5, JSON) of the image that this runs in.

`python bill_of_materials.py NAME [VENV …]`: Debian's packages and the Python packages of each VENV. The same
packages give the same bytes: no time and no random number is in it.
"""

import hashlib
import json
import subprocess
import sys
import uuid
from importlib.metadata import distributions
from pathlib import Path
from urllib.parse import quote

DPKG_FORMAT = r"${Package}\t${Version}\t${Architecture}\t${db:Status-Status}\n"


def python_packages(venv: Path) -> list:
    """The components of a virtual environment."""
    folders = [str(folder) for folder in venv.glob("lib/python*/site-packages")]
    return [_python(item.metadata) for item in distributions(path=folders)]


def _python(metadata) -> dict:
    name, version = metadata["Name"], metadata["Version"]
    purl = f"pkg:pypi/{name.lower().replace('_', '-')}@{quote(version)}"
    licence = (metadata["License"] or "").strip().split("\n")[0]
    found = {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}
    return found | ({"licenses": [{"license": {"name": licence[:100]}}]} if licence else {})


def debian_packages() -> list:
    """The components that dpkg knows."""
    distribution = dict(
        line.split("=", 1) for line in Path("/etc/os-release").read_text().replace('"', "").splitlines() if "=" in line
    )
    lines = subprocess.run(["dpkg-query", "-Wf", DPKG_FORMAT], capture_output=True, text=True, check=True).stdout
    rows = (line.split("\t") for line in lines.splitlines())
    return [_debian(distribution["ID"], *row[:3]) for row in rows if row[3] == "installed"]


def _debian(distribution: str, name: str, version: str, architecture: str) -> dict:
    purl = f"pkg:deb/{distribution}/{quote(name)}@{quote(version)}?arch={architecture}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def bill(name: str, components: list) -> dict:
    """The CycloneDX document of an image."""
    components = sorted({item["bom-ref"]: item for item in components}.values(), key=lambda item: item["bom-ref"])
    digest = hashlib.sha256(json.dumps(components, sort_keys=True).encode()).digest()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.UUID(bytes=digest[:16], version=4)}",
        "version": 1,
        "metadata": {"component": {"type": "container", "bom-ref": name, "name": f"lingbi/{name}"}},
        "components": components,
    }


if __name__ == "__main__":
    image, *venvs = sys.argv[1:]
    found = [*debian_packages(), *(item for venv in venvs for item in python_packages(Path(venv)))]
    json.dump(bill(image, found), sys.stdout, indent=1, sort_keys=True, ensure_ascii=False)
