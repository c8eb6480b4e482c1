"""The documentation is true: links resolve, snippets run, and commands, parameters, columns and models exist."""

import csv
import inspect
import json
import os
import re
import runpy
import subprocess
import sys
from functools import cache, partial, reduce
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest

import plumbline
from plumbline.data.simulate import CONTROL, Design, simulate

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")])
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")
BLOCK = re.compile(r"^( *)```(\w*)\n(.*?)^\1```", re.MULTILINE | re.DOTALL)
FRAGMENTS = {"docs/adding_a_model.md", "docs/adding_a_task.md"}  # parts of files that stand elsewhere: compiled, not run
STORIES = {"docs/python.md"}  # blocks that go on from those before: run as one
EXAMPLES = ("library_size", "isotropy")  # what the guides add: its files are not there
PARAMETERS = ("run", "estimate", "demo")  # verbs that pass their parameters to the pipeline
SCRIPTS = {"embed": ["embed_pca.py"], "check-model": ["check_model.py"], "fetch": ["fetch_dataset.py", "fetch_weights.py"]}
SCRIPTS |= {"weights": ["check_weights.py"]}
# options of other programs that the pages name: docker, Singularity, Slurm, nf-core, nf-test, cosign
FOREIGN = {"--gpus", "--device", "--nv", "--gres", "--format", "--local", "--profile", "--type"}


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, *languages: str) -> list[str]:
    """The code blocks of a page in these languages."""
    return [code for _, language, code in BLOCK.findall(page.read_text()) if language in languages]


def commands(page: Path) -> list[list[str]]:
    """Shell commands of a page as words, without comments; lines that end in a backslash are joined."""
    text = "\n".join(blocks(page, "bash", "")).replace("\\\n", " ")
    lines = [line.split(" #")[0].split() for line in text.splitlines() if not line.startswith("#")]
    parts = [" ".join(words).split(" && ") for words in lines]
    return [part.split() for line in parts for part in line if part.split()]


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return BLOCK.sub("", page.read_text())


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", BLOCK.sub("", page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def schema_parameters() -> set[str]:
    schema = json.loads((ROOT / "nextflow_schema.json").read_text())
    return {f"--{name}" for group in schema["$defs"].values() for name in group["properties"]}


@cache
def options_of_program(*command: str) -> set[str]:
    """The options that a program's --help names."""
    shown = subprocess.run([sys.executable, *command, "--help"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"--[a-z][\w-]*", shown))


def options_of_verb(verb: str) -> set[str]:
    """The options of a verb of ./plumb and of the script that it starts."""
    own = set() if verb in ("run", "estimate") else options_of_program("plumb", verb)
    scripts = [options_of_program(f"bin/{script}") for script in SCRIPTS.get(verb, [])]
    return own.union(*scripts) | (schema_parameters() if verb in PARAMETERS else set())


def is_example(path: str) -> bool:
    return any(name in path for name in EXAMPLES)


def table(page: str, heading: str) -> list[list[str]]:
    """Cells of the first table below a heading."""
    part = (ROOT / page).read_text().split(f"\n{heading}\n")[1]
    rows = re.search(r"(?:^\|.*\n)+", part, re.MULTILINE).group().splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def coded(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_relative_links_resolve(page: Path):
    broken = []
    for target in (first or second for first, second in LINK.findall(prose(page))):
        if "://" in target or target.startswith("mailto:"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        if not linked.exists() or (anchor and linked.suffix == ".md" and anchor not in anchors(linked)):
            broken.append(target)
    assert broken == []


def test_every_page_is_in_the_index():
    index = ROOT / "docs/README.md"
    linked = {(index.parent / target.partition("#")[0]).resolve() for target, _ in LINK.findall(index.read_text())}
    pages = {page for page in ROOT.glob("docs/**/*.md") if page != index}
    assert sorted(map(name_of, pages - linked)) == []


@pytest.fixture
def finished_run(tmp_path, monkeypatch) -> Path:
    """A folder in which `results/items.parquet` has two models, as the snippets expect it."""
    units = {"unit": ["GATA1", "KLF1"] * 2, "numerator": [3.0, 1.0, 1.0, 1.0], "denominator": 4.0}
    fixed = {
        "dataset": "vcc_h1_demo",
        "metric": "linear_top1",
        "postprocess": "selected",
        "variant": ["scvi"] * 2 + ["pca"] * 2,
    }
    (tmp_path / "results").mkdir()
    pd.DataFrame(units | fixed).to_parquet(tmp_path / "results/items.parquet")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=name_of)
def test_python_snippets_run(page: Path, finished_run: Path):
    for code in blocks(page, "python"):
        compiled = compile(code, name_of(page), "exec")
        if name_of(page) not in FRAGMENTS | STORIES:
            run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
            assert run.returncode == 0, run.stderr
        assert compiled


def test_the_snippet_on_items_says_what_its_page_claims(finished_run: Path):
    """Perturbations that scVI separates better than PCA come last: 3 of 4 cells against 1 of 4."""
    (code,) = blocks(ROOT / "docs/results_format.md", "python")
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert re.findall(r"(\w+) +(-?[\d.]+)$", run.stdout, re.MULTILINE) == [("KLF1", "0.0"), ("GATA1", "0.5")]


def test_the_page_on_python_runs_from_top_to_bottom(tmp_path):
    simulate(
        Design(n_perturbations=12, n_batches=4, cells_per_perturbation=12, n_genes=120, depth=1500.0), tmp_path / "made.h5ad"
    )
    data = ad.read_h5ad(tmp_path / "made.h5ad")
    data.obs = data.obs.rename(columns={"perturbation": "gene", "batch": "gem_group"}).replace({CONTROL: "non-targeting"})
    data.obsm = {name: np.random.default_rng(0).normal(size=(data.n_obs, 4)) for name in ("X_mine", "X_other")}
    data.write_h5ad(tmp_path / "my_screen.h5ad")
    code = "\n".join(blocks(ROOT / "docs/python.md", "python"))
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(ROOT / "bin")},
                         capture_output=True, text=True)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "WARNING" not in run.stderr
    assert "no evaluation" not in run.stderr
    assert "'recall_mean/vs_pca'" in run.stdout
    assert "'step': 1000" in run.stdout
    assert (tmp_path / "my_model/rev1/manifest.json").is_file()


def test_the_api_page_is_what_the_docstrings_say():
    made = subprocess.run(
        [sys.executable, "-c", "import make_api; print(make_api.page(), end='')"],
        cwd=ROOT / "docs",
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert (ROOT / "docs/api.md").read_text() == made, "run docs/make_api.py"


def test_the_page_of_parameters_is_what_the_schema_says():
    make_parameters = runpy.run_path(str(ROOT / "docs/make_parameters.py"))
    page = (ROOT / "docs/parameters.md").read_text()
    assert page == make_parameters["page"](), "run docs/make_parameters.py"
    assert sorted(re.findall(r"^\| `(--\w+)`", page, re.MULTILINE)) == sorted(schema_parameters())


@pytest.mark.parametrize("name", ["Screen", "Benchmark", "Result", "evaluate", "callbacks.Evaluator", "callbacks.Lightning"])
def test_the_docstrings_describe_every_parameter(name):
    thing = reduce(getattr, name.split("."), plumbline)
    assert f"\n## plumbline.{name}\n" in (ROOT / "docs/api.md").read_text()
    public = (
        [value for method, value in vars(thing).items() if not method.startswith("_")] if isinstance(thing, type) else [thing]
    )
    functions = [getattr(value, "__func__", value) for value in public]
    for function in filter(inspect.isfunction, functions):
        described = re.findall(r"^(?:\*\*|\*)?(\w[\w, ]*)\n    \S", inspect.getdoc(function) or "", re.MULTILINE)
        names = {part.strip() for line in described for part in line.split(",")}
        assert set(inspect.signature(function).parameters) - {"self", "cls"} <= names, function.__qualname__


@pytest.fixture(scope="module")
def verbs() -> set[str]:
    help_text = subprocess.run([ROOT / "plumb", "--help"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^    ([a-z][\w-]*)", help_text, re.MULTILINE))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_verbs_exist(page: Path, verbs: set[str]):
    # in code only: after ./plumb a word, where <verb> or an option is none
    named = re.findall(r"\./plumb ([a-z][\w-]*)", page.read_text())
    assert sorted(set(named) - verbs) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_options_of_commands_exist(page: Path):
    unknown = []
    for words in commands(page):
        known = options_of(words)
        if known is not None:
            given = {word.partition("=")[0] for word in words if word.startswith("--")}
            unknown += [f"{' '.join(words[:3])}: {option}" for option in sorted(given - known)]
    assert unknown == []


def options_of(words: list[str]) -> set[str] | None:
    """The options that a command of plumbline takes; None for other programs."""
    if words[:2] == ["nextflow", "run"]:
        return schema_parameters()
    if words[0] == "./plumb" and len(words) > 1 and not words[1].startswith("-"):
        return options_of_verb(words[1])
    script = f"bin/{Path(words[0]).name}"
    return options_of_program(script) if script.endswith(".py") and (ROOT / script).is_file() else None


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_scripts_and_profiles_exist(page: Path):
    config = (ROOT / "nextflow.config").read_text().split("\nprofiles {")[1]
    profiles = set(re.findall(r"^    (\w+) \{", config, re.MULTILINE)) | {"INSTITUTION"}
    named = re.findall(r"-profile \+?([\w,]+)", page.read_text())
    assert {profile for names in named for profile in names.split(",")} - profiles == set()
    scripts = {script for script in re.findall(r"\bbin/(\w+\.py)", page.read_text()) if not is_example(script)}
    assert [script for script in sorted(scripts) if not (ROOT / "bin" / script).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_parameters_in_the_text_exist(page: Path, verbs: set[str]):
    named = {word for code in coded(prose(page)) for word in re.findall(r"(?<!\S)--[a-zA-Z][\w-]*", code)}
    benchmarks = re.findall(r"--[a-z][\w-]*", "".join(path.read_text() for path in ROOT.glob("benchmarks/*.py")))
    unknown = named - schema_parameters() - FOREIGN - set(benchmarks)
    text = page.read_text()
    programs = [partial(options_of_program, name_of(script)) for script in sorted(ROOT.glob("bin/*.py"))]
    programs += [partial(options_of_verb, verb) for verb in sorted(verbs)]
    for options in sorted(programs, key=lambda program: Path(program.args[0]).stem not in text):  # each start takes time
        unknown -= options() if unknown else set()
    assert sorted(unknown) == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_paths_in_the_text_exist(page: Path):
    folders = {path.name for path in ROOT.iterdir() if path.is_dir() and path.name not in ("results", "work")}
    paths = {code.rstrip("/") for code in coded(prose(page)) if re.fullmatch(r"[\w.-]+(/[\w.-]+)+/?", code)}
    here = {path for path in paths if path.partition("/")[0] in folders and not is_example(path)}
    assert [path for path in sorted(here) if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_columns_of_example_sheets_exist(page: Path):
    schemas = [json.loads((ROOT / f"assets/schema_{name}.json").read_text()) for name in ("input", "embeddings")]
    for sheet in blocks(page, "csv"):
        header = set(sheet.splitlines()[0].split(","))
        assert any(header <= set(schema["items"]["properties"]) for schema in schemas), header


def test_the_columns_of_the_sheet_are_described_once_and_completely():
    described = [name for row in table("docs/datasets.md", "## Columns of the sheet") for name in coded(row[0])]
    schema = json.loads((ROOT / "assets/schema_input.json").read_text())
    assert sorted(described) == sorted(schema["items"]["properties"])
    elsewhere = [page for page in PAGES if page.name != "datasets.md" and "| `perturbation_column` |" in page.read_text()]
    assert elsewhere == []


def test_the_columns_of_the_score_table_are_described_completely():
    described = {name for row in table("docs/results_format.md", "## scores") for name in coded(row[0])}
    schema = json.loads((ROOT / "assets/scores.schema.json").read_text())
    assert sorted(described) == sorted(schema["items"]["properties"])


def test_the_readme_lists_every_variant_and_every_task():
    with open(ROOT / "assets/models.csv", newline="") as stream:
        variants = [row["id"] for row in csv.DictReader(stream)]
    listed = [name for row in table("README.md", "## Models") for name in coded(row[1])]
    assert sorted(listed) == sorted([*variants, "--embeddings sheet.csv"])
    tasks = sorted(path.stem for path in (ROOT / "bin/plumbline/tasks").glob("*.py") if path.stem != "__init__")
    assert sorted(name for row in table("README.md", "## Tasks") for name in coded(row[0])) == tasks


def test_the_readme_lists_every_verb(verbs: set[str]):
    assert {name for row in table("README.md", "## Two commands") for name in coded(row[0])} == verbs


def test_the_citation_has_the_version_of_the_pipeline():
    version = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(), re.MULTILINE).group(1)
    assert f"version = '{version}'" in (ROOT / "nextflow.config").read_text()
