"""The columns of the leaderboard's tables: how a value is shown, sorted and exported. Every text of a submitter is escaped."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass

from plumbline.report.words import TESTED, VERDICTS, escape, number, with_interval

Cell = Callable[[dict], str]
_WEB = re.compile(r"https?://[^\s\"'<>]+")


@dataclass(frozen=True)
class Column:
    """title: as readers see it. cell: row -> HTML of a <td>. names: of its values in a CSV ('|' between), if not the title."""

    title: str
    cell: Cell
    names: str = ""


def td(shown: str, values: list[str], sorted_by: str, kind: str = "", title: str = "") -> str:
    """A cell. shown: HTML. values: for a CSV. sorted_by: a number or a word, which also stands in LaTeX if it is a word."""
    exact = escape("|".join(value.replace("|", "/") for value in values))
    attributes = f'data-v="{escape(sorted_by)}" data-x="{exact}"'
    attributes += "" if kind == "n" else f' data-t="{escape(sorted_by)}"'
    attributes += (f' class="{kind}"' if kind else "") + (f' title="{escape(title)}"' if title else "")
    return f"<td {attributes}>{shown}</td>"


def text(name: str, under: str = "") -> Cell:
    """Words, and in a second line those of ``under``."""

    def cell(row: dict) -> str:
        words, more = str(row[name]), str(row[under]) if under else ""
        second = f"<small>{escape(more)}</small>" if more and more != words else ""
        return td(f"<span>{escape(words)}</span>{second}", [words, more] if under else [words], words)

    return cell


def titled(name: str, title: str) -> Cell:
    """Words, and those of ``title`` where one points at them."""

    def cell(row: dict) -> str:
        words = str(row[name])
        return td(f"<span>{escape(words)}</span>", [words, str(row[title])], words, title=str(row[title]))

    return cell


def interval(value: str, low: str, high: str, sign: bool = False) -> Cell:
    """A number and its interval; exports have all digits."""

    def cell(row: dict) -> str:
        exact = [_exact(row[name]) for name in (value, low, high)]
        score, bracket, ends = with_interval(row[value], row[low], row[high], row["metric"], sign).partition("[")
        shown = f"{score.strip()} <small>{bracket}{ends}</small>" if bracket else score
        return td(shown, exact, exact[0], "n")

    return cell


def plain(name: str) -> Cell:
    """One number."""

    def cell(row: dict) -> str:
        whole = isinstance(row[name], int)
        exact = _exact(row[name])
        return td(exact if whole else number(row[name]), [exact], exact, "n")

    return cell


def link(name: str) -> Cell:
    """An address: a link only if it leads to the web."""

    def cell(row: dict) -> str:
        words = str(row[name])
        shown = f"<span>{escape(words)}</span>"
        if _WEB.fullmatch(words):
            shown = f'<a href="{escape(words)}" rel="noopener noreferrer nofollow">{escape(words)}</a>'
        return td(shown, [words], words)

    return cell


def verdict(row: dict) -> str:
    """Symbol and word (never colour alone), the baseline, and a link to the row."""
    symbol, word = VERDICTS[row["verdict"]][:2] if row["verdict"] in VERDICTS else ("·", row["verdict"])
    kind = f' class="{row["verdict"]}"' if row["verdict"] in ("better", "worse") else ""
    against = f"<small>against {escape(row['baseline'])}</small>" if row["verdict"] in TESTED else ""
    anchor = '<a class="anchor" href="#" data-action="row" aria-label="link to this row">#</a>'
    shown = f'<span class="line"><span{kind}>{symbol} {escape(word)}</span> {anchor}</span>{against}'
    return td(shown, [word, row["baseline"], row["why"]], word, title=row["why"])


def _exact(value: float) -> str:
    return "" if math.isnan(value) else repr(value)


_MODEL = [Column("Model", text("model", "variant"), "model|variant"), Column("Revision", text("revision"))]
_DATASET = Column("Data set", titled("dataset", "dataset_title"), "dataset|dataset_title")
_SEEN = Column("Contamination", text("seen", "seen_source"), "contamination|contamination_source")
_COST = [
    Column("s / 1,000 cells", plain("seconds"), "seconds_per_1000_cells"),
    Column("Memory (GB)", plain("memory"), "memory_gb"),
]
OVERVIEW = [
    *_MODEL,
    *(Column(word, plain(word)) for word in ("better", "tied", "worse")),
    Column("not decided", plain("untold")),
    Column("Data sets", plain("sets")),
    Column("Licence", text("licence")),
]
SCORES = [
    *_MODEL,
    _DATASET,
    Column("Task", text("task_title", "metric_title"), "task|metric"),
    Column("Protocol", text("protocol")),
    Column("Score [95 %]", interval("value", "ci_low", "ci_high"), "score|score_low|score_high"),
    Column("Difference [95 %]", interval("difference", "diff_low", "diff_high", True), "difference|diff_low|diff_high"),
    Column("Verdict", verdict, "verdict|baseline|why"),
    Column("Calibrated", plain("calibrated")),
    _SEEN,
    Column("Licence", text("licence")),
    *_COST,
]
SUBMISSIONS = [
    *_MODEL,
    _DATASET,
    Column("plumbline", text("plumbline")),
    Column("Seeds", plain("seeds")),
    Column("Cells", plain("cells")),
    Column("Embedding included", text("verifiable")),
    Column("Code", link("code")),
    Column("Code licence", text("code_licence")),
    Column("Weights", link("weights")),
    Column("Weights licence", text("weights_licence")),
    Column("Training data", text("corpus")),
    _SEEN,
    Column("Hardware", text("hardware")),
    *_COST,
    Column("Tasks, rules", text("rules")),
    Column("sha256 of the cells", text("data_sha")),
    Column("sha256 of the embedding", text("embedding_sha")),
]
