"""The script and the style of the parts of the page that answer a reader: maps and the table of perturbations."""

import base64
import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np

STYLE, SCRIPT = Path(__file__).with_name("page.css"), Path(__file__).with_name("page.js")


def assets() -> str:
    """What the page needs once, after the parts that use it."""
    return f"<style>{STYLE.read_text()}</style><script>{SCRIPT.read_text()}</script>"


def embedded(kind: str, data: dict) -> str:
    """An element that page.js fills: ``kind`` is 'genes' or 'maps'. Names of users travel as data, never as HTML."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    packed = base64.b64encode(gzip.compress(text, 9, mtime=0)).decode()
    return (
        f'<div class="pl-live" data-pl-kind="{kind}" data-pl-data="{packed}"><p class="pl-grey">This part needs JavaScript '
        "and a browser of 2023 or later. <code>./plumb show GENE --run DIR</code> prints the same numbers.</p></div>"
    )


def rounded(values: Any, digits: int = 3) -> list:
    """Numbers for JSON with so many significant digits; None where there is none."""
    return [
        None if not np.isfinite(value) else float(f"{value:.{digits}g}") for value in np.asarray(values, dtype=float).tolist()
    ]
