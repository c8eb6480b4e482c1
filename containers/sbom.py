"""sbom.py NAME VERSION: run inside an image, writes its bill of materials (CycloneDX 1.5, JSON): Python and Debian packages.

By hand, because the usual programs for it would have to be installed into the image, or be given its whole file system.
"""

import json
import shutil
import subprocess
import sys
from importlib.metadata import Distribution, distributions


def bill(name: str, version: str) -> dict:
    """The bill as CycloneDX has it."""
    components = {entry["purl"]: entry for entry in [*map(_python, distributions()), *_debian()]}
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {"type": "container", "name": name, "version": version}},
        "components": [components[purl] for purl in sorted(components)],
    }


def _python(package: Distribution) -> dict:
    name = package.metadata["Name"]
    entry = _component(name, package.version, f"pkg:pypi/{name.lower().replace('_', '-')}@{package.version}")
    licence = package.metadata.get("License-Expression")
    return entry | ({"licenses": [{"expression": licence}]} if licence else {})


def _debian() -> list[dict]:
    if not shutil.which("dpkg-query"):
        return []
    asked = ["dpkg-query", "--show", "--showformat", "${Package} ${Version} ${Architecture}\n"]
    lines = subprocess.run(asked, capture_output=True, text=True, check=True).stdout.splitlines()
    rows = [line.split() for line in lines]
    return [_component(name, version, f"pkg:deb/debian/{name}@{version}?arch={machine}") for name, version, machine in rows]


def _component(name: str, version: str, purl: str) -> dict:
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


if __name__ == "__main__":
    json.dump(bill(*sys.argv[1:]), sys.stdout, indent=1)
