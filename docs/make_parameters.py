#!/usr/bin/env python3
"""Write docs/parameters.md: every parameter of the pipeline, from nextflow_schema.json.

nf-core's `pipelines schema docs` writes such a page too, but needs a hundred packages that no test has, and leaves out bounds.
"""

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Parameters

Made from `nextflow_schema.json` by `docs/make_parameters.py`; do not edit. Guide: [usage](usage.md). `./plumb run --help`
prints a short form. All faults of the parameters are reported at once, before the first task.
"""


def main() -> None:
    (ROOT / "docs/parameters.md").write_text(page())


def page() -> str:
    """The whole page: a table per group, a row per parameter."""
    groups = json.loads((ROOT / "nextflow_schema.json").read_text())["$defs"].values()
    return "\n".join([HEAD, *map(of_group, groups)])


def of_group(group: dict) -> str:
    """A heading and a table."""
    required = group.get("required", [])
    rows = [row(name, spec, name in required) for name, spec in group["properties"].items()]
    head = f"## {group['title']}\n\n{group['description']}.\n\n| parameter | meaning | values | default |\n|---|---|---|---|\n"
    return head + "".join(rows)


def row(name: str, spec: dict, required: bool) -> str:
    """One parameter."""
    meaning = f"{spec['description']}{'. **Required**' if required else ''}"
    meaning += f"<br><small>{spec['help_text']}</small>" if "help_text" in spec else ""
    default = f"`{json.dumps(spec['default']).strip(chr(34))}`" if "default" in spec else ""
    return f"| `--{name}` | {cell(meaning)} | {cell(values(spec))} | {cell(default)} |\n"


def values(spec: dict) -> str:
    """What a parameter may be."""
    if "enum" in spec:
        return ", ".join(f"`{value}`" for value in spec["enum"])
    kind = {"boolean": "`true`, `false`", "integer": "whole number", "number": "number"}.get(spec["type"], "text")
    kind = {"file-path": "file", "directory-path": "folder"}.get(spec.get("format", ""), kind)
    bounds = [f"{word} {spec[key]:,}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in spec]
    return " ".join([kind, *bounds])


def cell(text: str) -> str:
    """A text in a cell of a table."""
    return text.replace("|", "\\|").replace("\n", " ")


if __name__ == "__main__":
    main()
