"""The leaderboard as one HTML file: no request to anywhere, every text of a submitter escaped, readable without its script."""

import base64
import hashlib
import re
from pathlib import Path

from plumbline.bundles.board import Board
from plumbline.bundles.columns import OVERVIEW, SCORES, SUBMISSIONS, Column
from plumbline.report.words import SILENT, VERDICTS, escape
from plumbline.scoring.scores import counted

STYLE = Path(__file__).with_name("site.css")
SCRIPT = Path(__file__).with_name("site.js")
FILTERS = {
    "dataset": "Data set",
    "task": "Task",
    "protocol": "Protocol",
    "kind": "Kind",
    "verdict": "Verdict",
    "seen": "Contamination",
    "licence": "Licence",
}
ABOUT = """A verdict compares a model with the baseline on the same cells and units (q ≤ 0.05 within its own run). Protocol
<code>corrected</code> answers the question, <code>paper</code> repeats published settings. Contamination: was the model trained
on cells of this data set?"""


def page(board: Board, title: str = "plumbline leaderboard") -> str:
    """The whole file."""
    style, script = STYLE.read_text(), SCRIPT.read_text()
    policy = f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'"
    tables = [
        _table("overview", "Does it beat the baseline?", OVERVIEW, _tallies(board.scores)),
        _table("scores", "Scores", SCORES, board.scores, anchors=True),
        _table("submissions", "Submissions", SUBMISSIONS, board.submissions),
    ]
    left_out = "".join(f"<li>{escape(path)}: {escape(why)}</li>" for path, why in board.left_out)
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}; base-uri 'none'; form-action 'none'">
<title>{escape(title)}</title><style>{style}</style></head>
<body><h1>{escape(title)}</h1>
<p>{_counts(board)}. {ABOUT}</p>
{_filters(board)}
{"".join(tables)}
{f"<h2>Left out</h2><ul>{left_out}</ul>" if left_out else ""}
<script>{script}</script></body></html>
"""


def _counts(board: Board) -> str:
    """'9 results: 2 models, 1 reference, 3 data sets', as the tables below name them."""
    names = {kind: {row["variant"] for row in board.submissions if row["kind"] == kind} for kind in ("model", "reference")}
    parts = [counted(len(found), kind) for kind, found in names.items() if found or kind == "model"]
    parts.append(counted(len({row["dataset"] for row in board.submissions}), "data set"))
    return f"{counted(len(board.submissions), 'result')}: {', '.join(parts)}"


def _hash(text: str) -> str:
    """What a browser compares an inline script or style with before it uses it."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _filters(board: Board) -> str:
    """The form above the tables."""
    parts = ['<label>Search<input type="search" data-filter="q"></label>']
    for name, title in FILTERS.items():
        values = sorted({str(row[name]) for row in board.scores})
        options = "".join(f'<option value="{escape(value)}">{escape(_word(name, value))}</option>' for value in values)
        parts.append(f'<label>{title}<select data-filter="{name}"><option value="">all</option>{options}</select></label>')
    return f'<div class="filters">{"".join(parts)}<button type="button" data-action="clear">Clear</button></div>'


def _word(name: str, value: str) -> str:
    return VERDICTS[value][1] if name == "verdict" and value in VERDICTS else value


def _table(name: str, title: str, columns: list[Column], rows: list[dict], anchors: bool = False) -> str:
    """A heading, the buttons and a table whose rows can be filtered by their data-* attributes."""
    buttons = "".join(_button(name, kind.lower(), kind) for kind in ("CSV", "LaTeX"))
    head = "".join(
        f'<th scope="col" data-label="{column.title}" data-names="{column.names or column.title}">'
        f"{_button(name, 'sort', column.title, place)}</th>"
        for place, column in enumerate(columns)
    )
    body = "\n".join(_row(row, place, columns, anchors) for place, row in enumerate(rows))
    return (
        f'<h2>{title}</h2><div class="tools"><span data-count="{name}">{len(rows)} rows</span>{buttons}</div>'
        f'<div class="wide"><table id="{name}"><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>\n'
    )


def _button(table: str, action: str, words: str, column: int | None = None) -> str:
    place = "" if column is None else f' data-column="{column}"'
    return f'<button type="button" data-action="{action}" data-table="{table}"{place}>{words}</button>'


def _row(row: dict, place: int, columns: list[Column], anchors: bool) -> str:
    marks = "".join(f' data-{name}="{escape(str(row[name]))}"' for name in FILTERS if name in row)
    if anchors:
        where = "/".join(str(row[name]) for name in ("variant", "revision", "dataset", "metric", "protocol"))
        marks += f' id="{re.sub(r"[^A-Za-z0-9_./-]", "-", where)}"'
    cells = [column.cell(row).replace("<td", f'<td data-label="{column.title}"', 1) for column in columns]
    return f'<tr data-place="{place}"{marks}>{"".join(cells)}</tr>'


def _tallies(scores: list[dict]) -> list[dict]:
    """One row per model: how many verdicts of each kind under `corrected`, over data sets and main metrics."""
    rows: dict[tuple, dict] = {}
    for row in scores:
        if row["protocol"] == "corrected" and row["kind"] == "model" and row["variant"] != row["baseline"]:
            about = {name: row[name] for name in ("model", "variant", "revision", "kind", "licence")}
            about |= dict.fromkeys(("better", "tied", "worse", "untold"), 0) | {"names": set()}
            found = rows.setdefault((row["variant"], row["revision"]), about)
            found["names"].add(row["dataset"])
            word = "untold" if row["verdict"] in SILENT else row["verdict"]
            if word in found:  # and neither failed nor not applicable
                found[word] += 1
    tallies = [row | {"sets": len(row["names"])} for row in rows.values()]
    return sorted(tallies, key=lambda row: (row["worse"] - row["better"], row["variant"]))
