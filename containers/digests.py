"""digests.py FILE...: a configuration for `nextflow run -c` that pins every image by digest.

Each file has a line NAME IMAGE@sha256:..., as containers/publish writes it, with NAME an environment.
"""

import re
import sys
from pathlib import Path

HEAD = "// The images of this release by digest: nextflow run ... -c image_digests.config\n"


def configuration(images: dict[str, str]) -> str:
    """The process selectors: MULTIQC, the models by the environment of their row in assets/models.csv, base for all else."""
    of_models = ", ".join(f"{name}: '{image}'" for name, image in sorted(images.items()) if name != "multiqc")
    return f"""{HEAD}process {{
    withName: '!(EMBED_.*|MULTIQC.*)' {{ container = '{images["base"]}' }}
    withName: 'EMBED_.*' {{ container = {{ [{of_models}].get(meta?.env ?: 'base') }} }}
    withName: 'MULTIQC.*' {{ container = '{images["multiqc"]}' }}
}}
"""


def read(paths: list[Path]) -> dict[str, str]:
    """{environment: image by digest}"""
    lines = [line for path in paths for line in path.read_text().splitlines()]
    found = [re.fullmatch(r"([\w-]+) ([\w./:-]+@sha256:[0-9a-f]{64})", line) for line in lines]
    if None in found:
        sys.exit(f"ERROR: not NAME IMAGE@sha256:...: {lines[found.index(None)]}")
    return {line[1]: line[2] for line in found if line}


if __name__ == "__main__":
    print(configuration(read([Path(path) for path in sys.argv[1:]])), end="")
