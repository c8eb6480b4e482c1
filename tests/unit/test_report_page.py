"""The living parts of the report in a browser: they fill, answer, and fetch nothing. Needs Chromium; skips without."""

import re
import shutil
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest

from plumbline.report.page import assets, embedded, rounded
from plumbline.report.verdicts import STYLE, verdict_cell
from plumbline.report.words import table

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
needs_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine: the page is not opened")
POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"
HEAD = f'<meta charset="utf-8"><meta http-equiv="Content-Security-Policy" content="{POLICY}">'


def genes(n=60, models=2):
    """As gene_section.payload: perturbation i has value i in the first model."""
    values = [[float(i + model) for i in range(n)] for model in range(models)]
    return {"names": [f"G{i:02d}" for i in range(n - 1)] + ["</div><script>alert(1)</script>"],
            "models": [f"model {model}" for model in range(models)], "about": {"strength": "rank"}, "cells": [10.0] * n,
            "strength": [i / n for i in range(n)], "expression": [None] * n, "near": [[[1, 2]] * n] * models,
            "measures": [{"title": "AUROC", "about": "0.5 is chance", "values": values, "q": [[0.01] * n] * models},
                         {"title": "Other", "about": "", "values": [[None] * n] * models, "q": None}],
            "known": [1, 1] + [0] * (n - 2), "pairs": [[0, 1, "CORUM", [1]]]}  # fmt: skip


def maps():
    return {"models": ["PCA", "scVI"], "perturbations": ["ctrl", "G01", "G02"], "batches": ["b1", "b2"], "named": ["G01"],
            "p": [0, 1, 2], "b": [0, 1, 0], "c": [1, 0, 0], "x": [[0, 500, 999], [0, None, 999]],
            "y": [[0, 500, 999], [0, None, 999]]}  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> tuple[str, str]:
    """(the page after a reader searched for G01, pressed its name, and marked G02 in the maps; what the console said)."""
    folder = tmp_path_factory.mktemp("page")
    acts = """setTimeout(() => {
        const type = (input, text) => { input.value = text; input.dispatchEvent(new Event("input")); };
        const [search, mark] = document.querySelectorAll("input[type=search]");
        type(search, "g0"); type(mark, "G02"); type(search, "G01");
        const drawn = (canvas) => canvas.getContext("2d").getImageData(0, 0, 520, 520).data.some((value) => value);
        document.title = [...document.querySelectorAll("canvas")].map(drawn).join();
    }, 1500)"""
    body = f'{embedded("genes", genes())}{embedded("maps", maps())}<pre id="t">text</pre><button data-pl-copy="t"></button>'
    page = folder / "page.html"
    page.write_text(f"<!doctype html><html><head>{HEAD}</head><body>{body}{assets()}<script>{acts}</script></body></html>")
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=6000"]
    command = [BROWSER, *options, f"--user-data-dir={folder}/profile", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout, "\n".join(line for line in done.stderr.splitlines() if ":CONSOLE" in line)


@needs_browser
def test_the_console_says_nothing_and_nothing_is_fetched(opened):
    """The page's policy forbids every request: one would be an error in the console."""
    assert opened[1] == ""


@needs_browser
def test_search_puts_the_exact_name_first_and_opens_it(opened):
    page = opened[0]
    rows = re.findall(r'<tr><td><button type="button">([^<]+)</button>', page)
    assert rows == ["G01"]
    card = page[page.index("pl-card") :]
    assert "<b>G01</b>" in card
    assert "<td>Most similar</td><td>G01, G02</td>" in card
    assert "<td>Known partners recalled (of 1)</td><td>0</td><td>1: G00</td>" in card
    assert "<td>1 (q 0.01)</td>" in card


@needs_browser
def test_every_map_is_drawn_and_marks_a_perturbation(opened):
    assert "<title>true,true</title>" in opened[0]
    assert re.search(r"</i>G02</span>", opened[0])


@needs_browser
def test_names_are_text(opened):
    assert "<script>alert" not in opened[0]


@needs_browser
def test_no_verdict_runs_into_its_neighbour_on_paper(tmp_path):
    """The widest words of a cell, in ten columns as wide as a page of A4, by the rules of print."""
    row = {
        "verdict": "cannot tell",
        "status": "ok",
        "metric": "m",
        "note": "",
        "reason": "",
        "unit": "perturbation",
        "n_units": 240,
    }
    row |= {"value": -0.11, "difference": -0.025, "diff_low": -0.044, "diff_high": -0.108, "detectable": 0.03}
    cells = [verdict_cell(SimpleNamespace(**row | {"verdict": name})) for name in ("cannot tell", "too few units", "tied") * 3]
    rows = [["<b>PCA (raw counts, all cells; as the paper)</b>", *cells]]
    head = ["Model", *["Finding perturbations again"] * 9]
    body = f'<div class="pl-scroll" style="width:640px">{table(head, rows, "pl-tight")}</div>'
    style = (STYLE + assets()).replace("@media print{", "@media all{")
    script = """<script>const cells = [...document.querySelectorAll("td")];
        document.title = cells.filter((one) => one.scrollWidth > one.clientWidth + 1).length + " of " + cells.length</script>"""
    (tmp_path / "page.html").write_text(
        f"<!doctype html><html><body style='font-size:16px'>{style}{body}{script}</body></html>"
    )
    options = ["--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/profile", "--dump-dom"]
    command = [BROWSER, *options, (tmp_path / "page.html").as_uri()]
    shown = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False).stdout
    assert "<title>0 of 10</title>" in shown


def test_without_a_browser_that_can_the_reader_is_told_where_to_look():
    assert "plumb show GENE" in embedded("genes", {})


def test_nothing_in_the_page_points_elsewhere():
    assert not re.search(r"https?://|@import|fetch\(|XMLHttpRequest|eval\(", assets())
    assert "@media print" in assets()


def test_ten_models_on_three_large_screens_stay_small():
    """MultiQC's own page takes 4 MB of the 15 that the report may have."""
    random, n = np.random.default_rng(0), 3000
    data = genes(n, 10)
    data["measures"] = [{"title": "m", "about": "", "q": None, "values": [rounded(random.random(n)) for _ in range(10)]}] * 4
    data["near"] = random.integers(0, n, (10, n, 5)).tolist()
    places = random.integers(0, 1000, (10, 2000)).tolist()
    cells = {**maps(), "x": places, "y": places, "p": places[0], "b": places[0], "c": [0] * 2000}
    assert 3 * (len(embedded("genes", data)) + len(embedded("maps", cells))) < 6e6


def test_numbers_are_rounded_and_missing_ones_are_null():
    assert rounded([0.123456, np.nan, 1234567.0, -0.00012345]) == [0.123, None, 1230000.0, -0.000123]
