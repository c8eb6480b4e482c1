"""What has no score is answered with what to do next; the methods text can be pasted as it is."""

import re

import pandas as pd
import pytest

from plumbline import __version__
from plumbline.report.advice import OTHERWISE, next_step
from plumbline.report.methods import methods_text
from plumbline.report.run import Run

REASONS = {
    "EMBED failed: CUDA out of memory. Tried to allocate 2 GiB (exit status 66)": "smaller --batch_size",
    "EVALUATE failed: Killed (exit status 137); its folder: /w/ab": "more memory",
    "EMBED failed: the checkpoint lacks vocab.json (exit status 1)": "./plumb fetch",
    "EMBED failed: ModuleNotFoundError: No module named 'torch' (exit status 1)": "./plumb doctor",
    "EMBED left no result: see the log of that task": ".command.err",
}
NOT_SUITABLE = {
    "geneformer_v1 knows human genes only and the data set is rat": "orthologs=FILE",
    "scVI is a model of counts; this data set holds signed values.": "raw counts",
    "the data set has no batches to mix": "batch_column",
    "the distance is to control cells, and the data set has none": "control_label",
    "9 pairs known to SIGNOR among 40 perturbed genes; at least 10 are needed": "more perturbed genes",
    "all 5 perturbed genes are expressed (mean_count >= 0.15): there is no null": "protocol corrected",
    "held-out perturbations are predicted, and the data set has one perturbation": "more perturbations",
    "none of the 50 gene symbols is a human gene of UCE (first: a, b); is the organism right?": "organism",
    "something that nobody foresaw": "Everything else was scored",
}


@pytest.mark.parametrize(("reason", "advice"), [*REASONS.items(), *NOT_SUITABLE.items()])
def test_every_reason_has_a_next_step(reason, advice):
    assert advice in next_step("failed" if reason in REASONS else "not_applicable", reason)


def test_a_failure_is_not_blamed_on_the_data():
    assert next_step("failed", "the data set has no batches to mix") == OTHERWISE["failed"]
    assert "-resume" in OTHERWISE["failed"]


def made_run() -> Run:
    columns = {"dataset": "s", "protocol": "corrected", "main": True, "verdict": "tied", "calibrated": 0.5}
    rows = [{**columns, "variant": v, "label": v, "role": r} for v, r in (("pca", "baseline"), ("scgpt", "foundation"),
                                                                         ("random", "floor"))]  # fmt: skip
    models = {"pca": {"title": "PCA", "citation": "arXiv:2410.13956", "settings": "n_components=256"},
              "scgpt": {"title": "scGPT", "citation": "doi:10.1/x", "weights_revision": "abc123"}, "random": {}}  # fmt: skip
    facts = {"n_cells": 21000, "n_perturbations": 1, "n_genes": 2000}
    about = {"baseline": "pca", "models": models, "datasets": {"s": {"facts": facts}}, "seeds": [42, 43], "n_boot": 1000}
    table = pd.DataFrame(rows)
    none = table[:0]
    return Run(about, none, table, none, none, none)


def test_the_methods_text_cites_what_it_uses_and_numbers_it():
    text = methods_text(made_run(), {"s": "A. et al. 2020"})
    body, _, references = text.partition("\n\nReferences\n")
    listed = dict(re.findall(r"^(\d+)\. (.+)$", references, re.MULTILINE))
    cited = {number for group in re.findall(r"\[([\d,]+)\]", body) for number in group.split(",")}
    assert cited == set(listed) == {str(n) for n in range(1, len(listed) + 1)}
    assert f"plumbline {__version__}" in body
    assert "(42, 43)" in body
    assert "Data: s [3] (21,000 cells, 2,000 genes)." in body
    assert listed["3"] == "A. et al. 2020"
    assert "scGPT [4] (checkpoint abc123)" in body
    assert "Random" not in body


def test_a_source_known_by_its_identifier_is_listed_once():
    text = methods_text(made_run(), {})
    assert "PCA [1] (n_components=256)" in text
    assert text.count("2410.13956") == 1
