"""The leaderboard: one page, no request, no text of a submitter as HTML; in a browser it filters, sorts, links and exports."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from made_run import sign

from plumbline.bundles import board, site
from plumbline.bundles.board import Board, read_board
from plumbline.bundles.manifest import MANIFEST, find_bundles
from plumbline.common.errors import UserError

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
HOSTILE = """x"><img src=x onerror="parent.hit=1"><script>parent.hit=1</script>|&'"""
# drives the page in a frame, and leaves what it saw as JSON
DRIVER = """<!doctype html><pre id="out"></pre><iframe id="frame" style="width:%dpx;height:800px"></iframe><script>
const frame = document.getElementById("frame"), saved = {}, seen = {};
const load = (hash) => new Promise((done) => { frame.onload = done; frame.src = "page.html" + hash; });
(async () => {
  await load("%s");
  const view = frame.contentWindow, page = frame.contentDocument;
  const rows = (id) => [...page.getElementById(id).tBodies[0].rows].filter((row) => !row.hidden);
  const column = (id, n) => rows(id).map((row) => row.cells[n].textContent.trim());
  const click = (selector) => page.querySelector(selector).click();
  const pick = (name, value) => { const one = page.querySelector(`[data-filter=${name}]`); one.value = value;
    one.dispatchEvent(new view.Event("input")); };
  view.URL.createObjectURL = (blob) => { saved.last = blob; return "blob:none"; };
  view.HTMLAnchorElement.prototype.click = function () { saved.name = this.download; };
  %s
  document.getElementById("out").textContent = JSON.stringify(seen);
})().catch((error) => { document.getElementById("out").textContent = JSON.stringify({ error: String(error) }); });
</script>"""


def in_browser(page: str, folder: Path, script: str, hash_: str = "", width: int = 1200) -> dict:
    """What ``script`` put into ``seen``, and the console's messages."""
    if CHROMIUM is None:
        pytest.skip("no Chromium on this machine: the page was not opened in a browser")
    (folder / "page.html").write_text(page)
    (folder / "driver.html").write_text(DRIVER % (width, hash_, script))
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-web-security", "--allow-file-access-from-files"]
    options += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=8000", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([CHROMIUM, *options, (folder / "driver.html").as_uri()], capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    seen = json.loads(found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert "error" not in seen, seen
    return seen | {"console": [line for line in done.stderr.splitlines() if "CONSOLE" in line]}


@pytest.fixture(scope="module")
def found(made) -> Board:
    return read_board([made / "bundles"])


def test_every_bundle_has_its_rows(found):
    assert len(found.submissions) == 3
    assert len(found.scores) == 3 * 2 * 2  # main metrics, protocols
    mine = [row for row in found.scores if row["variant"] == "mine"]
    assert {row["seen"] for row in mine} == {"unknown"}
    assert {row["seen_source"] for row in mine} == {"not stated by the submitter"}
    assert {row["kind"] for row in found.scores if row["variant"] == "random"} == {"reference"}
    assert {row["seen_source"] for row in found.submissions if row["variant"] == "pca"} == {"not pre-trained"}


def test_contamination_of_a_known_checkpoint_is_that_of_the_table():
    stated = {"seen": "no"}
    assert board.seen_of("geneformer_v1", {"name": "norman"}, {})[0] == "no"
    assert board.seen_of("scgpt", {"name": "nobody_knows"}, stated)[0] == "unknown"  # a submitter does not overrule the table
    assert board.seen_of("mine", {"name": "norman"}, stated) == ("no", "stated by the submitter")


def test_what_is_not_sound_is_left_out_with_the_reason(made, bundle, tmp_path):
    (bundle / "items.parquet").unlink()
    with pytest.raises(UserError, match=r"(?s)no sound bundle in .*items\.parquet is missing"):
        read_board([bundle])
    (tmp_path / "x" / "y").mkdir(parents=True)
    (tmp_path / "x" / "y" / MANIFEST).write_text("{}")
    found = read_board([made / "bundles", bundle, tmp_path / "x"])
    assert len(found.submissions) == 3
    assert [Path(path) for path, _ in found.left_out] == sorted([bundle, tmp_path / "x/y"])
    assert "items.parquet is missing" in site.page(found)


def test_a_result_counts_once_and_the_one_that_can_be_verified_is_shown(made, tmp_path):
    small = tmp_path / "a"  # before "bundles" by name
    for place, bundle in enumerate(find_bundles(made / "bundles")):
        copy = shutil.copytree(bundle, small / str(place))
        for path in copy.glob("embedding*"):
            path.unlink()
        sign(copy, embeddings=[], left_out={"embedding": "large"})
    alone, both = read_board([made / "bundles"]), read_board([small, made / "bundles"])
    assert repr(both.scores) == repr(alone.scores)  # NaN is not NaN
    assert [row["verifiable"] for row in both.submissions] == ["yes"] * 3
    assert len(both.left_out) == 3
    assert all("the same model, revision and data set as" in why for _, why in both.left_out)


def test_scores_of_other_rules_are_left_out(bundle):
    tasks = json.loads((bundle / MANIFEST).read_text())["tasks"]
    sign(bundle, tasks=tasks | {"magnitude": tasks["magnitude"] | {"version": "0"}})
    found = read_board([bundle])
    assert {row["task"] for row in found.scores} == {"consistency"}
    ((where, why),) = found.left_out
    assert where == f"{bundle}, magnitude"
    assert "scored by version 0" in why


def test_the_overview_counts_verdicts_of_models_alone(found):
    verdicts = [("a", "better"), ("a", "at the floor"), ("a", "not_applicable"), ("b", "worse"), ("pca", "baseline")]
    rows = [found.scores[0] | {"variant": variant, "verdict": verdict} for variant, verdict in verdicts]
    assert {row["protocol"] for row in rows} == {"corrected"}
    tallies = [[row[name] for name in ("variant", "better", "tied", "worse", "untold", "sets")] for row in site._tallies(rows)]
    assert tallies == [["a", 1, 0, 0, 1, 1], ["b", 0, 0, 1, 0, 1]]


def test_the_page_asks_nothing_of_the_network(found):
    page = site.page(found)
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(r"<(img|link|iframe|object|embed|source|base)\b|\ssrc=|@import|url\(", page)
    assert len(page) < 100_000


def hostile_board(found: Board) -> Board:
    """Every text of every row is an attack."""

    def attacked(rows: list[dict]) -> list[dict]:
        return [{name: HOSTILE if isinstance(value, str) else value for name, value in row.items()} for row in rows]

    scores = [row | {"protocol": "corrected", "kind": "model"} for row in attacked(found.scores)]
    submissions = [row | {"code": "javascript:parent.hit=1"} for row in attacked(found.submissions)]
    return Board(scores, submissions, [(HOSTILE, HOSTILE)])


def test_no_text_of_a_submitter_becomes_html(found, tmp_path):
    page = site.page(hostile_board(found), HOSTILE)
    assert "<img" not in page
    assert page.count("<script") == 1
    assert 'href="javascript' not in page
    script = 'seen.hit = String(window.hit); seen.cell = rows("scores")[0].cells[0].firstChild.textContent; '
    script += 'click("[data-action=csv][data-table=scores]"); seen.csv = await saved.last.text();'
    seen = in_browser(page, tmp_path, script)
    assert seen["hit"] == "undefined"
    assert seen["cell"] == HOSTILE
    assert seen["console"] == []
    assert len(seen["csv"].splitlines()) == 1 + 12


def test_it_filters_sorts_links_and_exports_in_a_browser(found, tmp_path):
    script = """
    seen.start = [rows("scores").length, rows("submissions").length, page.querySelector("[data-filter=protocol]").value];
    seen.sorted = column("scores", 5).map((text) => parseFloat(text)).filter((x) => !isNaN(x));
    pick("kind", "model"); seen.models = column("scores", 0);
    pick("q", "mine magn"); seen.searched = column("scores", 3); seen.hash = view.location.hash;
    click("[data-action=csv][data-table=scores]"); seen.csv = await saved.last.text(); seen.name = saved.name;
    click("[data-action=latex][data-table=scores]"); seen.tex = await saved.last.text();
    rows("scores")[0].querySelector("a.anchor").dispatchEvent(new view.MouseEvent("click", {bubbles: true, cancelable: true}));
    seen.row = new view.URLSearchParams(view.location.hash.slice(1)).get("row"); seen.here = page.querySelector("tr.here").id;
    click("[data-action=clear]"); seen.cleared = [rows("scores").length, view.location.hash];
    const score = page.querySelectorAll("#scores th")[5];
    score.firstChild.dispatchEvent(new view.MouseEvent("click", {bubbles: true})); seen.up = score.getAttribute("aria-sort");
    score.firstChild.dispatchEvent(new view.MouseEvent("click", {bubbles: true})); seen.down = score.getAttribute("aria-sort");
    seen.last = column("scores", 5).at(-1);
    """
    seen = in_browser(site.page(found), tmp_path, script, "#protocol=corrected&sort-scores=5.d")
    assert seen["start"] == [6, 3, "corrected"]  # a permalink; the table of submissions has no protocol
    assert seen["sorted"] == sorted(seen["sorted"], reverse=True)
    assert len(seen["models"]) == 4
    assert seen["searched"] == ["Effect magnitudepercent of perturbations, p ≤ 0.05"]
    assert "q=mine+magn" in seen["hash"]
    assert seen["name"] == "scores.csv"
    head, row = (next(iter(parsed)) for parsed in map(rows_of_csv, seen["csv"].splitlines()))
    (wanted,) = [r for r in found.scores if (r["variant"], r["task"], r["protocol"]) == ("mine", "magnitude", "corrected")]
    values = dict(zip(head, row, strict=True))
    assert float(values["score"]) == wanted["value"]  # all digits
    assert (values["variant"], values["metric"], values["verdict"]) == ("mine", wanted["metric_title"], wanted["verdict"])
    assert seen["tex"].count("\\\\") == 2
    assert "\\toprule" in seen["tex"]
    assert seen["row"] == seen["here"] != ""
    assert seen["cleared"] == [12, ""]
    assert (seen["up"], seen["down"]) == ("ascending", "descending")
    assert seen["last"] == "–"  # without a value, last in both directions
    assert seen["console"] == []


def rows_of_csv(line: str) -> list[list[str]]:
    import csv

    return list(csv.reader([line]))


def test_on_a_phone_nothing_is_wider_than_the_screen(found, tmp_path):
    script = "seen.widths = [page.documentElement.scrollWidth, view.innerWidth]; seen.console = [];"
    seen = in_browser(site.page(found), tmp_path, script, width=360)
    assert seen["widths"][0] <= seen["widths"][1] == 360
    assert seen["console"] == []


def test_on_paper_nothing_is_cut_and_headings_are_words(found, tmp_path):
    """The rules of print, at the width of a page of A4 (in a browser, which is the only one to know)."""
    page = re.sub(r"<meta http-equiv=[^>]*>", "", site.page(found)).replace("@media print{", "@media all{")
    script = """seen.widths = [...page.querySelectorAll("table")].map((one) => one.scrollWidth); seen.console = [];
    const heads = [...page.querySelectorAll("#scores th")];
    seen.heads = heads.map((th) => view.getComputedStyle(th, "::before").content);
    seen.buttons = heads.map((th) => th.querySelector("button").offsetWidth);"""
    seen = in_browser(page, tmp_path, script, width=718)
    assert max(seen["widths"]) <= 718
    assert seen["heads"][:2] == ['"Model"', '"Revision"']
    assert set(seen["buttons"]) == {0}, "browsers leave them out of the headings of a second page"


def test_the_page_counts_models_and_references_apart(found):
    assert "<p>3 results: 2 models, 1 reference, 1 data set. " in site.page(found)


def test_a_bundle_with_an_attack_in_its_manifest_is_shown_as_text(bundle):
    manifest = json.loads((bundle / MANIFEST).read_text())
    sign(
        bundle,
        model=manifest["model"] | {"title": HOSTILE},
        submission={"code": HOSTILE, "seen": [HOSTILE], "corpus": {"a": 1}},
    )
    page = site.page(read_board([bundle]))
    assert "<img" not in page
    assert "&lt;img src=x onerror=" in page
