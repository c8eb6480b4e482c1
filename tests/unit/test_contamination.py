"""Whether a checkpoint saw a data set: statements first, then dates, else unknown; in the tables and in the report."""

import re
from fnmatch import fnmatchcase

import pandas as pd
import pytest

from plumbline.data.catalogue import MONTH, read_catalogue
from plumbline.embedding.contamination import ANSWERS, read_statements, seen
from plumbline.embedding.variants import read_rows, read_variants
from plumbline.summary.seen import with_seen

ROWS = {row["id"]: row for row in read_rows()}


def _asked(variant, **facts):
    return seen(ROWS[variant], facts)[0]


@pytest.mark.parametrize(
    ("variant", "facts", "answer"),
    [
        ("pca", {"name": "norman"}, ""),  # fitted on the data themselves
        ("geneformer_untrained", {"name": "norman"}, ""),  # no pre-training at all
        ("geneformer_v1", {"name": "norman", "public_since": "2019-03"}, "no"),  # a statement of the authors
        ("geneformer_v1", {"name": "kang", "public_since": "2017-11"}, "unknown"),
        ("scgpt", {"name": "simulated_corum"}, "no"),
        ("scgpt", {"name": "vcc_h1", "public_since": "2025-06"}, "no"),  # the corpus was closed before
        ("scgpt", {"name": "replogle_rpe1", "public_since": "2021-12"}, "unknown"),
        ("state_se600m", {"name": "vcc_h1", "public_since": "2025-06"}, "unknown"),
        ("scgpt", {"name": "mine", "public_since": "2026-11"}, "no"),
        ("scgpt", {"name": "mine"}, "unknown"),
        ("scgpt", {"name": "vcc_h1.heldout", "public_since": "2025-06"}, "no"),  # a part of the data set
    ],
)
def test_what_is_known(variant, facts, answer):
    assert _asked(variant, **facts) == answer


def test_the_same_month_proves_nothing():
    row = ROWS["scgpt"]
    assert seen(row, {"name": "x", "public_since": row["corpus_until"]})[0] == "unknown"


def test_every_statement_has_a_source_and_names_something():
    catalogue, variants = read_catalogue(), read_variants()
    for row in read_statements():
        assert row["seen"] in ANSWERS, row
        assert len(row["source"]) > 10, row
        assert any(fnmatchcase(name, row["checkpoint"]) for name in variants), row
        for pattern in row["dataset"].split():
            assert any(fnmatchcase(name, pattern) for name in catalogue), (row, pattern)


def test_months_are_months():
    months = [row["corpus_until"] for row in ROWS.values()] + [row["public_since"] for row in read_catalogue().values()]
    assert all(MONTH.fullmatch(month) for month in months if month)
    everywhere = {row["checkpoint"] for row in read_statements() if row["dataset"] == "*"}
    undated = {row["id"] for row in ROWS.values() if row["weights_files"] and not row["corpus_until"]}
    assert undated <= everywhere, "a checkpoint without corpus_until needs a statement of its own"


def test_the_table_says_it_for_every_row():
    table = pd.DataFrame({"variant": ["pca", "scgpt", "my_model"], "dataset": ["a", "a", "a"]})
    found = with_seen(table, {"a": {"name": "a", "public_since": "2026-01"}})
    assert found["seen"].tolist() == ["", "no", "unknown"]
    assert "2026-01" in found["seen_source"][1]


def test_the_filter_hides_what_it_says(made_report_seen):
    """Read as CSS: under a choice, the answers that it leaves out are hidden, and no other."""
    hidden = re.findall(r"#pl-seen-(\w+):checked\) tr:has\(td\.pl-is-(\w+)\)", made_report_seen)
    assert set(hidden) == {("unseen", "yes"), ("sure", "yes"), ("sure", "unknown")}
    assert "geneformer &lt;v1&gt;" in made_report_seen  # names are escaped
    assert "1 better, 0 tied, 0 worse" in made_report_seen


@pytest.fixture
def made_report_seen():
    from plumbline.report.run import Run
    from plumbline.report.seen import seen_section

    row = {"protocol": "corrected", "main": True, "label": "geneformer <v1>", "dataset": "a", "verdict": "better"}
    comparisons = pd.DataFrame([row | {"seen": "unknown", "seen_source": "nobody said"}, row | {"label": "PCA", "seen": ""}])
    about = {"baseline": "pca", "models": {}, "datasets": {}}
    empty = pd.DataFrame()
    run = Run(about, empty, comparisons, empty, empty, empty)
    (found,) = seen_section(run)
    return found["data"]


def test_the_sheet_takes_a_month_only(tmp_path):
    from plumbline.common.errors import UserError
    from plumbline.data.catalogue import resolve

    row = {"name": "mine", "perturbation_column": "gene"}
    assert resolve(row | {"public_since": "2026-11"}, {}).public_since == "2026-11"
    with pytest.raises(UserError, match="month such as"):
        resolve(row | {"public_since": "May 2026"}, {})
