"""Wrong parameters, sheets and names: the message names the row and the reason. One Nextflow start serves all cases."""

import codecs
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import h5py
import pytest
import yaml

from .conftest import ROOT, SHEET_COLUMNS

pytestmark = pytest.mark.pipeline

EXAMPLE = yaml.safe_load((ROOT / "assets/params.example.yml").read_text())
# parameters -> what each message must hold, one message per tuple; no tuples: accepted
PARAMETERS = [
    ({}, []),
    (EXAMPLE | {"input": str(ROOT / EXAMPLE["input"])}, []),
    ({"n_boot": 20.5}, [("--n_boot: expected a whole number, got '20.5'",)]),
    ({"n_boot": "20.5"}, [("--n_boot: expected a whole number, got '20.5'",)]),
    ({"n_boot": "1e3"}, [("--n_boot: expected a whole number, got '1e3'",)]),
    ({"n_boot": 3}, [("--n_boot: 3 is below the minimum 20",)]),
    ({"n_boot": 100000000000}, [("--n_boot: 100000000000 is above the maximum 100000",)]),
    ({"n_boot": "9" * 30}, [("--n_boot", "above the maximum")]),
    ({"n_boot": True}, [("--n_boot: expected a whole number, got 'true'",)]),
    ({"n_draws": "0"}, [("--n_draws: 0 is below the minimum 20",)]),
    ({"share_draws": 100000}, [("--share_draws: 100000 is above the maximum 100",)]),
    ({"share_draws": 0}, [("--share_draws: 0 is below the minimum 1",)]),
    ({"batch_size": -5}, [("--batch_size: -5 is below the minimum 1",)]),
    ({"batch_size": "64"}, []),
    ({"max_gpus": 0}, [("--max_gpus: 0 is below the minimum 1",)]),
    ({"estimate_only": "yes"}, [("--estimate_only: expected true or false, got 'yes'",)]),
    ({"estimate_only": "TRUE"}, []),
    ({"outdir": True}, [("--outdir: expected text, got 'true'",)]),
    ({"models": ["pca"]}, [("--models: expected text, got a list",)]),
    ({"models": "pca,scpgt"}, [("--models: 'scpgt' is not known", "'scgpt'")]),
    ({"models": "pca,pca"}, [("--models: pca is there twice",)]),
    ({"models": " , "}, [("--models: is empty",)]),
    ({"tasks": "recal"}, [("--tasks: 'recal' is not known", "'recall'")]),
    ({"tasks": "recall,recall"}, [("--tasks: recall is there twice",)]),
    ({"tasks": "all,recall"}, [("--tasks: 'all' is not known",)]),
    ({"experiment_tasks": "recal"}, [("--experiment_tasks: 'recal' is not known",)]),
    ({"experiments": "transfers"}, [("--experiments: 'transfers' is not known", "'transfer'")]),
    ({"protocols": "corrected, paper"}, []),
    ({"protocols": "papers"}, [("--protocols: 'papers'", "paper,corrected")]),
    ({"protocols": "paper,paper"}, [("--protocols: paper is there twice",)]),
    ({"seeds": 42}, []),
    ({"seeds": "0,4294967295"}, []),
    ({"seeds": "4294967296"}, [("--seeds: 4294967296 is above 4294967295",)]),
    ({"seeds": "fortytwo"}, [("--seeds: 'fortytwo'", "seeds are whole numbers")]),
    ({"seeds": "-1"}, [("--seeds: '-1'",)]),
    ({"seeds": 42.5}, [("--seeds: '42.5'",)]),
    ({"seeds": "42,42"}, [("--seeds: 42 is there twice",)]),
    ({"shares": "0.5,5"}, [("--shares: 5 is not a share", "at most 1")]),
    ({"shares": "0"}, [("--shares: 0 is not a share",)]),
    ({"shares": "1.2.3"}, [("--shares: 1.2.3 is not a share",)]),
    ({"shares": "0.5,0.50"}, [("--shares: 0.5 is there twice",)]),
    ({"damages": "thinned150"}, [("--damages: 'thinned150'", "such as thinned25,panel1000")]),
    ({"damages": "thinned25,thinned25"}, [("--damages: thinned25 is there twice",)]),
    ({"shares": "half"}, [("--shares: 'half'", "such as 0.05,0.5")]),
    ({"model_settings": "pca:n_components=50,scvi_nb:max_epochs=3,pca:head=classify"}, []),
    ({"model_settings": "pca:"}, [("'pca:': expected model:setting=value",)]),
    ({"model_settings": "pca:n_components"}, [("'pca:n_components': expected model:setting=value",)]),
    ({"model_settings": "pca:n_components="}, [("'pca:n_components=': expected model:setting=value",)]),
    ({"model_settings": "=abc"}, [("'=abc': expected model:setting=value",)]),
    ({"model_settings": "=0"}, [("'=0': expected model:setting=value",)]),
    ({"model_settings": "pca:n_components=0"}, [("pca:n_components: 0 is below the minimum 1",)]),
    ({"model_settings": "pca:n_components=abc"}, [("pca:n_components: expected a whole number, got 'abc'",)]),
    ({"model_settings": "pca:n_component=5"}, [("pca has no setting 'n_component'", "'n_components'")]),
    ({"model_settings": "pca:input=row"}, [("pca:input: 'row' is not one of lognorm, raw", "'raw'")]),
    ({"model_settings": "pcaa:n_components=5"}, [("there is no model 'pcaa'", "'pca'")]),
    ({"model_settings": "pca:input=$(touch x)"}, [("expected model:setting=value",)]),
    ({"model_settings": "pca:n_components=5,pca:n_components=6"}, [("--model_settings: pca:n_components is there twice",)]),
    ({"slurm_queue": "gpu; touch x"}, [("--slurm_queue: 'gpu; touch x'",)]),
    (
        {
            "email": "jane.doe+runs@mail.example-lab.science",
            "email_on_fail": "a@b.org",
            "hook_url": "https://hooks.slack.com/services/T0/B-1/x_y",
        },
        [],
    ),
    ({"email": "jane.doe"}, [("--email: 'jane.doe': expected one address",)]),
    ({"email": "a@b.org,c@d.org"}, [("--email: 'a@b.org,c@d.org'",)]),
    ({"email": "-oQ/tmp@b.org"}, [("--email",)]),
    ({"email": "a@b.org -X/tmp/log"}, [("--email",)]),
    ({"email": "a@b.org\nBcc: all@b.org"}, [("--email: holds a line break",)]),
    ({"email_on_fail": "$(id)@b.org"}, [("--email_on_fail",)]),
    ({"email": True}, [("--email: expected text, got 'true'",)]),
    ({"plaintext_email": "maybe"}, [("--plaintext_email: expected true or false",)]),
    ({"monochrome_logs": 1}, [("--monochrome_logs: expected true or false",)]),
    ({"max_multiqc_email_size": "5 MB"}, []),
    ({"max_multiqc_email_size": "large"}, [("--max_multiqc_email_size: 'large'", "such as 25.MB")]),
    ({"hook_url": "hooks.slack.com/x"}, [("--hook_url", "begins with https://")]),
    ({"hook_url": "https://h.org/x y"}, [("--hook_url",)]),
    ({"multiqc_title": "x" * 201}, [("--multiqc_title: 201 characters",)]),
    ({"multiqc_title": "a\nb"}, [("--multiqc_title: holds a line break",)]),
    ({"multiqc_config": "/no/such.yml"}, [("--multiqc_config: '/no/such.yml' does not exist",)]),
    ({"multiqc_config": "FOLDER/broken.yml"}, [("--multiqc_config", "cannot be read as YAML")]),
    ({"multiqc_config": "FOLDER/list.yml"}, [("--multiqc_config", "not a map of settings")]),
    ({"multiqc_logo": str(ROOT / "plumb")}, [("--multiqc_logo", "expected a .png")]),
    ({"multiqc_logo": str(ROOT / "assets/logo.svg")}, []),
    ({"multiqc_methods_description": "FOLDER/no_data.yml"}, [("--multiqc_methods_description: has no data",)]),
    (
        {"multiqc_methods_description": "FOLDER/dollar.yml"},
        [("--multiqc_methods_description: cannot be filled in", "dollar sign")],
    ),
    ({"multiqc_methods_description": "FOLDER/list.yml"}, [("--multiqc_methods_description", "not a map")]),
    ({"n_bot": 100}, [("--n_bot: there is no such parameter", "'--n_boot'")]),
    ({"n-boot": 100}, [("--n-boot: there is no such parameter", "'--n_boot'")]),
    ({"input": None}, [("--input: required parameter is missing",)]),
    ({"input": "/no/such.csv"}, [("--input: '/no/such.csv' does not exist",)]),
    ({"input": "/no/such.xlsx"}, [("--input: '/no/such.xlsx'", "a sheet is a .csv")]),
    ({"weights": "/no/such"}, [("--weights: '/no/such' does not exist",)]),
    ({"weights": str(ROOT / "plumb")}, [("--weights", "is a file, expected a folder")]),
    ({"outdir": str(ROOT / "plumb")}, [("--outdir", "is a file, expected a folder")]),
    ({"env_dir": "/no/such"}, [("--env_dir: '/no/such' does not exist",)]),
    ({"n_boot": 1.5, "seeds": "x", "tasks": "recal"}, [("--n_boot",), ("--seeds",), ("--tasks",)]),  # all at once
]

# files that PARAMETERS name
YAML = {
    "broken.yml": "a: [\n",
    "list.yml": "- a\n- b\n",
    "no_data.yml": "section_name: nothing\n",
    "dollar.yml": "data: costs $five\n",
}

ROW = "tiny,DATA,perturbation,non-targeting,batch,human,counts,0,crispri"
SHEET = f"{SHEET_COLUMNS}\n{ROW}\n"
SHORT = "name,perturbation_column,control_label"

# file name, content -> what each message must hold
SHEETS = {
    "good.csv": (SHEET, []),
    "byte_order_mark.csv": (codecs.BOM_UTF8 + SHEET.replace("\n", "\r\n").encode(), []),
    "quoted.csv": (SHEET.replace("non-targeting", '"a ""b"", c"'), []),
    "quoted_line.csv": ('name,title\nkang_demo,"two\nlines"\n', [("line 2 (kang_demo), column 'title'", "line break")]),
    "empty_rows_and_columns.csv": (f"{SHORT},,\nkang_demo,,,,\n\n,,,,\n", []),
    "tab.tsv": (SHEET.replace(",", "\t"), []),
    "misspelt.csv": ("name,batch,control\nkang_demo,b,c\n", [("'batch'", "'batch_column'"), ("'control'", "'control_label'")]),
    "no_such_column.csv": ("name,colour\nkang_demo,red\n", [("no column 'colour'", "Known: name, path")]),
    "semicolons.csv": (SHEET.replace(",", ";"), [("separated by semicolons, expected commas",)]),
    "tabs.csv": (SHEET.replace(",", "\t"), [("separated by tabs", ".tsv")]),
    "utf16.csv": (SHEET.encode("utf-16"), [("UTF-16", "CSV UTF-8")]),
    "latin1.csv": ("name,title\nkang_demo,Zürich\n".encode("latin-1"), [("not UTF-8", "Latin-1")]),
    "workbook.csv": (b"PK\x03\x04" + bytes(20), [("Excel workbook",)]),
    "binary.csv": (bytes(20), [("not text",)]),
    "empty.csv": ("", [("it is empty",)]),
    "blank.csv": ("\n\n", [("it is empty",)]),
    "header_only.csv": (f"{SHORT}\n", [("it has no rows",)]),
    "short_row.csv": (f"{SHORT}\nkang_demo,x\n", [("line 2: 2 values, but the header has 3 columns",)]),
    "long_row.csv": (f"{SHORT}\nkang_demo,x,a,b\n", [("line 2: 4 values, but the header has 3 columns",)]),
    "open_quote.csv": (f'{SHORT}\nkang_demo,"x,y\n', [("line 2: a quote is opened and not closed",)]),
    "nameless_column.csv": (f"{SHORT},\nkang_demo,,,x\n", [("line 2: column 4 holds 'x', but has no name",)]),
    "twice.csv": ("name,title,title\nkang_demo,a,b\n", [("the column 'title' occurs 2 times",)]),
    "same_name.csv": ("name\nkang_demo\nvcc_h1_demo\nkang_demo\n", [("line 2 (kang_demo) and line 4 (kang_demo)",)]),
    "same_name_but_for_case.csv": ("name\nkang_demo\nKang_demo\n", [("line 3 (Kang_demo)", "but for upper and lower case")]),
    "comment.csv": ("# my data\nname,path\nkang_demo,\n", [("it begins with '# my data'", "no comments")]),
    "home.csv": ("name,path\na,~/a.h5ad\n", [("line 2 (a), column 'path'", "write the home folder in full")]),
    "no_name.csv": ("name,title\nkang_demo,a\n,b\n", [("line 3, column 'name': is empty",)]),
    "odd_name.csv": ("name\nodd name!\n", [("line 2 (odd name!), column 'name'", "use letters")]),
    "parent.csv": ("name\n..\n", [("line 2", "use letters")]),
    "option.csv": ("name\n-x\n", [("line 2", "use letters")]),
    "long_name.csv": (f"name\n{'x' * 300}\n", [("line 2", "300 characters, at most 60")]),
    "bad_value.csv": (f"{SHEET}{ROW.replace('tiny', 'b').replace('counts', 'logg')}\n", [("line 3 (b)", "'x_kind'", "'log'")]),
    "bad_number.csv": (SHEET.replace(",0,", ",many,"), [("line 2 (tiny), column 'min_counts'", "expected a number")]),
    "negative.csv": (SHEET.replace(",0,", ",-1,"), [("column 'min_counts': -1 is below the minimum 0",)]),
    "huge.csv": (SHEET.replace(",0,", ",1e300,"), [("column 'min_counts'", "above the maximum")]),
    "beside.csv": ("name,path,cell_table\na,größe (2) & b.h5ad,./größe (2) & b.h5ad\nb,other.h5ad,\n",
                   [("line 3 (b), column 'path': 'other.h5ad' does not exist", "in a sheet, also to its own folder")]),
    "gone.csv": ("name,path\na,DATA\nb,/no/such/file.h5ad\n", [("line 3 (b), column 'path'", "does not exist")]),
    "brackets.csv": ("name,path\na,DATA\nb,/data/x[1].h5ad\n", [("line 3 (b), column 'path'", "[ ]", "Rename it")]),
    "dollar.csv": ("name,path\nb,/data/$(touch x).h5ad\n", [("line 2 (b), column 'path'", "holds $", "shell")]),
    "star.csv": ("name,path\nb,/data/*.h5ad\n", [("line 2 (b), column 'path'", "holds *")]),
    "no_answer.csv": ("name,path\nb,http://127.0.0.1:9/a.h5ad\n", [("line 2 (b)", "no answer from 'http://127.0.0.1:9/a.h5ad'")]),
    "scheme.csv": ("name,path\nb,nowhere://x/a.h5ad\n", [("line 2 (b)", "'nowhere://x/a.h5ad' cannot be opened")]),
    "rows.json": ('[{"name": "kang_demo", "control_label": "control"}]', []),
    "one_row.json": ('{"name": "kang_demo"}', [("not a list of rows",)]),
    "words.json": ('["kang_demo"]', [("not a list of rows",)]),
    "broken.json": ('[{"name": ', [("cannot be read as json",)]),
    "nested.json": ('[{"name": ["kang_demo"]}]', [("row 1", "column 'name': expected text, got a list")]),
    "digits.json": ('[{"name": "kang_demo", "control_label": 1.10}]', [("row 1 (kang_demo)", "quotes")]),
    "rows.yml": ("- name: kang_demo\n  control_label: control\n", []),
    "no.yml": ("- name: kang_demo\n  control_label: no\n",
               [("row 1 (kang_demo)", "put quotes around the text, or it is read as a truth value, 'false'")]),
    "one_row.yml": ("name: kang_demo\n", [("not a list of rows",)]),
    "broken.yml": ("- name: [\n", [("cannot be read as yml",)]),
}  # fmt: skip

EMBEDDINGS = {
    "good.csv": ("dataset,name,path,key\ntiny,mine,EMBEDDING,X_pca\n", []),
    "key.csv": ("dataset,name,path,key\ntiny,mine,EMBEDDING,X'$(touch x)'\n", [("line 2 (mine), column 'key'", "quotes")]),
    "kind.csv": ("dataset,name,path\ntiny,mine,/data/a.csv\n", [("line 2 (mine), column 'path'", "npz")]),
    "long.csv": (f"dataset,name,path\ntiny,{'x' * 300},EMBEDDING\n", [("line 2", "at most 60")]),
    "same.csv": ("dataset,name,path\ntiny,a,EMBEDDING\ntiny,a,EMBEDDING\n", [("line 2 (a) and line 3 (a)", "tiny, a")]),
}

# the key '*': file of entries of obsm -> the names and keys of the embeddings, or words of the message
ENTRIES = {
    "two.h5ad": (["X_mine", "X_pca"], ["mine.X_mine=X_mine", "mine.X_pca=X_pca"]),
    "many.h5ad": ([f"X_{n}" for n in range(60)], [f"mine.X_{n}=X_{n}" for n in sorted(map(str, range(60)))]),
    "accents.h5ad": (["X_ü", "X_a b"], ["mine.X_a_b=X_a b", "mine.X__=X_ü"]),
    "quotes.h5ad": (["X'$(touch x)'"], r"quotes\.h5ad: entry .*a key without quotes"),
    "long.h5ad": (["x" * 300], r"long\.h5ad: entry .*305 characters, at most 60"),
    "none.h5ad": ([], r"none\.h5ad.*its obsm is empty"),
    "text.h5ad": (None, r"text\.h5ad.*not an HDF5 file"),
    "newer.h5ad": (["X_mine"], r"newer\.h5ad: its list cannot be read \(it is of a newer kind"),
    "mine.npz": (None, "mine.npz.*not an HDF5 file"),
}


def wanted(dataset: str, variant: str, embedding_id: str) -> list:
    """A request as embedRequests makes them, as far as names go."""
    return [{"id": embedding_id, "dataset": dataset, "variant": variant}, [], []]


# data sets, embeddings of the sheet, requests, experiments -> what each message must hold
NAMES = [
    (["tiny"], ["mine"], [("tiny", "mine", "tiny.mine"), ("tiny", "pca", "tiny.pca.42")], [], []),
    (["tiny"], ["pca"], [], [], [("the embedding 'pca'", "name of a model", "my_pca")]),
    (["tiny", "tiny.x"], ["x.random"], [("tiny", "x.random", "tiny.x.random"), ("tiny.x", "random", "tiny.x.random")], [],
     [("'x.random' of data set 'tiny' and 'random' of data set 'tiny.x'", "'tiny.x.random'")]),
    (["x", "x.heldout"], [], [], ["objectives"], [("'x.heldout' of 'x'", "Rename")]),
    (["x", "x.heldout"], [], [], ["transfer"], []),
    (["x"], [], [("x", "pca", "x.pca.42"), ("x", "pca", "x.pca.42")], [], []),  # wanted twice, by two experiments
]  # fmt: skip


# profiles, parameters -> what each message must hold
PROFILES = [
    (["uv"], {}, [("--env_dir: -profile uv needs", "./plumb setup")]),
    (["test", "uv"], {"env_dir": None}, [("--env_dir",)]),
    (["uv"], {"env_dir": "/envs"}, []),
    (["docker"], {}, []),
]


# a row of the sheet (kang is in the catalogue) -> words of the warning
LISTED = {"name": "kang", "title": "Kang 2018", "organism": "human", "control_label": "control", "batch_column": ""}
OWN_FILES = [
    ({"name": "kang", "path": "a.h5ad", "control_label": "ctrl"},
     [("kang: what the sheet leaves open", "title Kang 2018, organism human. If")]),
    ({"name": "kang", "path": "a.h5ad", "title": "mine", "organism": "human", "control_label": "none"}, []),
    ({"name": "kang"}, []),
    ({"name": "mine", "path": "a.h5ad"}, []),
]  # fmt: skip


@pytest.fixture(scope="module")
def said(tmp_path_factory) -> dict[str, list[str]]:
    """Case -> messages, of every case above."""
    folder = tmp_path_factory.mktemp("request")
    files = {"DATA": folder / "data.h5ad", "EMBEDDING": folder / "embedding.npz"}
    for file in files.values():
        file.touch()
    cases = {f"parameters {number}": {"parameters": given} for number, (given, _) in enumerate(with_sheet(folder))}
    for kind, schema, sheets in (("sheet", "schema_input", SHEETS), ("embeddings", "schema_embeddings", EMBEDDINGS)):
        for name, (content, _) in sheets.items():
            path = write(folder / kind / name, content, files)
            cases[f"{kind} {name}"] = {"sheet": str(path), "schema": f"{schema}.json"}
    for number, (ids, embeddings, requests, experiments, _) in enumerate(NAMES):
        models = [{"variant": name, "only": "tiny"} for name in embeddings] + [{"variant": "pca"}]
        rows = [wanted(*request) for request in requests]
        cases[f"names {number}"] = {"ids": ids, "models": models, "requests": rows, "experiments": experiments}
    for number, (profiles, given, _) in enumerate(PROFILES):
        cases[f"profiles {number}"] = {"profiles": profiles, "parameters": given}
    for number, (row, _) in enumerate(OWN_FILES):
        cases[f"own file {number}"] = {"row": row, "listed": LISTED if row["name"] == "kang" else None}
    for name, (entries, _) in ENTRIES.items():
        cases[f"entries {name}"] = {"entries": str(with_entries(folder / name, entries))}
    for name, path in made_folders(folder / "folders").items():
        cases[f"folder {name}"] = {"folder": str(path)}
    (folder / "sheet/größe (2) & b.h5ad").touch()  # the run starts elsewhere
    (folder / "cases.json").write_text(json.dumps(list(cases.values())))
    command = [os.environ["PLUMBLINE_NEXTFLOW"], "run", ROOT / "tests/pipeline/schema", "--cases", folder / "cases.json"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    answers = [json.loads(line.removeprefix("CASE ")) for line in done.stdout.splitlines() if line.startswith("CASE ")]
    return dict(zip(cases, answers, strict=True))


def with_entries(path: Path, names: list[str] | None) -> Path:
    """Write an HDF5 file as anndata does, or with None some text."""
    if names is None:
        path.write_text("some text\n" * 20)
        return path
    with h5py.File(path, "w", libver="latest" if path.stem == "newer" else None) as file:
        for group in ("X", "layers", "obs", "obsm", "obsp", "uns", "var", "varm", "varp"):
            file.create_group(group).attrs["encoding-type"] = "dict"
        for name in names:
            file["obsm"][name] = [[0.0]]
    return path


def made_folders(folder: Path) -> dict[str, Path]:
    """A folder of two files, copies of it, and what stands in it; a file is rewritten without a change of its folder."""
    made = {"first": folder / "first"}
    for name, text in (("matrix.mtx", "1 1 5"), ("deep/genes.tsv", "A")):
        write(made["first"] / name, text, {})
        os.utime(made["first"] / name, (1e9, 1e9))
    for name in ("same", "rewritten", "renamed", "touched"):
        made[name] = Path(shutil.copytree(made["first"], folder / name))
    (made["rewritten"] / "deep/genes.tsv").write_text("B")
    (made["renamed"] / "matrix.mtx").rename(made["renamed"] / "counts.mtx")
    os.utime(made["touched"] / "matrix.mtx", (2e9, 2e9))
    return made | {"file": made["first"] / "matrix.mtx"}


def with_sheet(folder: Path):
    """PARAMETERS, each with a sheet, which every run needs."""
    sheet = folder / "a sheet (1).csv"
    sheet.write_text("name\nkang_demo\n")
    for name, text in YAML.items():
        (folder / name).write_text(text)
    filled = [({name: _in(folder, value) for name, value in given.items()}, expected) for given, expected in PARAMETERS]
    return [({"input": str(sheet)} | given, expected) for given, expected in filled]


def _in(folder: Path, value: object) -> object:
    return value.replace("FOLDER", str(folder)) if isinstance(value, str) else value


def write(path: Path, content: str | bytes, files: dict[str, Path]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, str):
        content = content.encode()
    for name, file in files.items():
        content = content.replace(name.encode(), str(file).encode())
    path.write_bytes(content)
    return path


def check(messages: list[str], expected: list[tuple[str, ...]]) -> None:
    """One message per entry, in any order, with all its words."""
    assert len(messages) == len(expected), messages
    for words in expected:
        assert any(all(word in message for word in words) for message in messages), (words, messages)


@pytest.mark.parametrize("number", range(len(PARAMETERS)), ids=lambda number: json.dumps(PARAMETERS[number][0])[:60])
def test_parameters(said, number):
    check(said[f"parameters {number}"], PARAMETERS[number][1])


@pytest.mark.parametrize("name", SHEETS)
def test_sheet_of_data_sets(said, name):
    check(said[f"sheet {name}"], SHEETS[name][1])


@pytest.mark.parametrize("name", EMBEDDINGS)
def test_sheet_of_embeddings(said, name):
    check(said[f"embeddings {name}"], EMBEDDINGS[name][1])


@pytest.mark.parametrize("name", ENTRIES)
def test_entries_of_obsm(said, name):
    """Each is an embedding of its own name; what a name or an argument cannot hold is refused."""
    expected = ENTRIES[name][1]
    if isinstance(expected, str):
        (message,) = said[f"entries {name}"]
        assert re.search(expected, message), message
    else:
        assert said[f"entries {name}"] == expected


def test_a_file_that_is_rewritten_in_a_folder_is_seen(said):
    """Nextflow takes a folder whose file was written anew for the one before: -resume kept the results of the old counts."""
    seen = {name: said[f"folder {name}"][0] for name in ("first", "same", "rewritten", "renamed", "touched", "file")}
    assert seen["file"] == ""
    assert seen["same"] == seen["first"] != ""
    assert len({seen[name] for name in ("first", "rewritten", "renamed", "touched")}) == 4


@pytest.mark.parametrize("number", range(len(PROFILES)))
def test_profiles_get_what_they_need(said, number):
    """`nextflow run . -profile uv` ran the tasks with the python of the machine: no module named 'numpy'."""
    check(said[f"profiles {number}"], PROFILES[number][-1])


@pytest.mark.parametrize("number", range(len(OWN_FILES)))
def test_a_file_of_ones_own_under_a_name_of_the_catalogue_is_noticed(said, number):
    """A subset called `norman` got the title, the type and the published scores of another data set, and nothing said so."""
    check(said[f"own file {number}"], OWN_FILES[number][-1])


@pytest.mark.parametrize("number", range(len(NAMES)))
def test_names(said, number):
    check(said[f"names {number}"], NAMES[number][-1])
