"""Gene and cell names as people write them: which genes, controls and combinations are meant."""

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp
from made_input import prepare_run, refused, screen, tables  # noqa: F401 - the fixture "run"

from plumbline.counts.frames import as_text
from plumbline.counts.gene_columns import gene_names
from plumbline.genes.combinations import is_combination, joined_otherwise, like_control, normalise, split_genes
from plumbline.genes.organism import check_organism, known

HUMAN = ["TP53", "MYC", "EGFR", "KRAS", "BRCA1", "RPL3", "RPS6", "POLR2A", "MALAT1", "XIST", "H19", "ACTB"]
MOUSE = ["Actb", "Gnai3", "Cdc45", "Narf", "Trp53", "Myc", "Egfr", "Kras", "Brca1", "Rpl3", "Polr2a", "Klf4"]


def with_genes(var: pd.DataFrame, **obs) -> ad.AnnData:
    data = screen(n_genes=len(var))
    data.var = var
    for name, values in obs.items():
        data.obs[name] = values
    return data


def said(facts: dict, text: str) -> bool:
    return any(text in warning for warning in facts["warnings"])


# --- which features are genes


def with_guides(column: str = "feature_types", kind: str = "CRISPR Guide Capture") -> ad.AnnData:
    """Counts of which the last four features are counts of each perturbation's own guide."""
    data = screen(200)
    guides = np.stack([90 * (data.obs["gene"] == name) for name in ("TP53", "MYC", "EGFR", "KRAS")], axis=1)
    names = [*data.var_names, *(f"guide{n}" for n in range(4))]
    var = pd.DataFrame({column: ["Gene Expression"] * 40 + [kind] * 4, "symbol": [*data.var["symbol"], *"abcd"]}, index=names)
    return ad.AnnData(sp.csr_matrix(np.hstack([data.X.toarray(), guides]).astype(np.float32)), data.obs, var)


@pytest.mark.parametrize("column", ["feature_types", "feature_type"])
@pytest.mark.parametrize("kind", ["CRISPR Guide Capture", "Antibody Capture", "Custom"])
def test_only_gene_expression_is_kept_of_an_h5ad(run, column, kind):
    facts, report, cells, _ = tables(run(with_guides(column, kind)))
    assert (facts["n_genes"], report["genes"]["input"], report["genes"]["left_out"]) == (40, 40, {kind: 4})
    assert said(facts, f"4 features are not gene expression and were left out ({kind}: 4)")
    assert cells["n_counts"].max() < 600  # min_counts reads genes alone
    plain = tables(run(screen(200)))[2]
    np.testing.assert_array_equal(cells["n_counts"], plain["n_counts"])


def test_a_biotype_is_no_feature_type(run):
    data = screen()
    data.var["feature_type"] = ["protein_coding"] * 30 + ["lncRNA"] * 10
    assert tables(run(data))[0]["n_genes"] == 40


def test_a_file_without_gene_expression_is_refused(run):
    data = screen()
    data.var["feature_types"] = "Antibody Capture"
    refused(run, data, "holds no gene expression, only 40 Antibody Capture")


def test_features_named_as_something_else_are_said(run):
    var = pd.DataFrame(index=[*(f"ENSG{n:011d}" for n in range(9)), "sgRNA_TP53", "CD3_TotalSeqB", "n_counts", "depth", "TP53"])
    facts, report, *_ = tables(run(with_genes(var, depth=1.0), min_counts=0))
    assert report["genes"]["not_named_as_genes"] == ["sgRNA_TP53", "CD3_TotalSeqB", "n_counts", "depth"]
    assert said(facts, "4 features are named as guides, antibodies, annotations or perturbations")


LEAKS = {"guide_umi": np.arange, "TP53_counts": lambda n: np.arange(n) % 7, "target_expression": lambda n: np.linspace(0, 1, n)}


def test_of_obs_nothing_but_the_columns_of_the_sheet_is_read(run):
    """Counts of guides and targets beside the labels: no table, no model and no task ever sees them."""
    data = screen()
    for name, values in LEAKS.items():
        data.obs[name] = values(data.n_obs)
    data.obsm["X_target"] = data.layers["targets"] = np.asarray(data.X.todense())
    data.uns["targets"] = "TP53"
    facts, _, cells, _ = tables(run(data, min_counts=0))
    assert not said(facts, "a measurement of each cell")
    assert set(cells) == {"cell_id", "perturbation", "is_control", "batch", "n_counts"}
    with h5py.File(run.out / "counts.h5ad") as file:
        assert set(file["obs"]) == {"_index", "perturbation", "is_control", "batch"}
        assert set(file["var"]) == {"_index", "ensembl_id", "symbol"}
        assert not any(len(file[name]) for name in ("layers", "obsm", "obsp", "varm", "varp"))


@pytest.mark.parametrize(("column", "is_said"), [("guide_umi", True), ("n_counts", True), ("target_expression", True),
                                                 ("TP53_counts", False), ("gem_group", False)])  # fmt: skip
def test_a_measurement_in_place_of_a_batch_is_said(run, column, is_said):
    data = screen()
    numbers = LEAKS | {"n_counts": lambda n: np.arange(n) % 30, "gem_group": lambda n: np.arange(n) % 30}
    data.obs[column] = numbers[column](data.n_obs)
    facts, *_ = tables(run(data, min_counts=0, batch_column=column))
    assert said(facts, f"The batch_column '{column}' holds") == is_said


# --- identity of genes


def test_ids_come_from_the_column_with_most_of_them():
    index = np.array([f"ENSG{n:011d}" if n < 10 else f"SYM{n}" for n in range(200)])
    gene_ids = np.array([f"ENSG{n:011d}.2" for n in range(200)])
    ensembl, symbol = gene_names({"gene_ids": gene_ids}, index)
    assert ensembl.tolist() == [f"ENSG{n:011d}" for n in range(200)]
    assert symbol[10:].tolist() == index[10:].tolist()


def test_gaps_are_filled_from_the_next_column_but_no_name_is_given_twice():
    ids = ["ENSG00000000001", "ENSG00000000003", "", ""]
    columns = {"ensembl_id": np.array(ids), "symbol": np.array(["", "EGFR", "NA", "MYC"])}
    index = np.array(["TP53", "g", "ENSG00000000002", "ENSG00000000001"])
    ensembl, symbol = gene_names(columns, index)
    assert ensembl.tolist() == [*ids[:2], "ENSG00000000002", ""]
    assert symbol.tolist() == ["TP53", "EGFR", "", "MYC"]


NAMELESS = ["", "-", "NA", "None", "nan", "null", "N/A", "<NA>"]


def test_genes_without_a_name_are_never_added_up(run):
    names = [*HUMAN, *NAMELESS, *NAMELESS]
    data = with_genes(pd.DataFrame(index=names))
    data.obs["gene"] = data.obs["gene"].astype(str)
    facts, report, _, genes = tables(run(data, min_counts=0))
    assert (facts["n_genes"], report["genes"]["merged"]) == (len(names), 0)
    assert genes["gene_id"].is_unique
    assert said(facts, f"{2 * len(NAMELESS)} genes have no name")
    np.testing.assert_allclose(genes["mean_count"], data.X.toarray()[:, :].mean(0), rtol=1e-6)


def test_two_genes_of_one_symbol_stay_two_where_their_ids_differ(run):
    ids = [f"ENSG{n:011d}" for n in range(20)]
    var = pd.DataFrame({"gene_ids": ids}, index=[*HUMAN[:10], *HUMAN[:10]])
    assert tables(run(with_genes(var), min_counts=0))[0]["n_genes"] == 20


# --- organism


@pytest.mark.parametrize(
    ("names", "organism", "message"),
    [
        ([*MOUSE, "C3"], "human", "spelt as mouse genes .*Set organism to mouse"),
        ([f"ENSMUSG{n:011d}" for n in range(20)] + ["TP53"], "human", "spelt as mouse genes .*Set organism to mouse"),
        ([f"ENSG{n:011d}" for n in range(20)] + ["Actb"], "mouse", "spelt as human genes .*Set organism to human"),
    ],
)
def test_genes_of_another_organism_are_refused_with_the_right_advice(run, names, organism, message):
    refused(run, with_genes(pd.DataFrame(index=names)), message, organism=organism, min_counts=0)


@pytest.mark.parametrize(
    ("names", "way"),
    [
        (["GRCh38_TP53", "mm10___Trp53"], r"str\.replace\(r'\^\.\*"),  # two genomes
        (["hg19_TP53", "hg19_MYC"], r"str\.replace\(r'\^\.\*"),
        (["TP53_x1", "MYC|x2"], r"str\.replace\(r'\[_"),
        (["tp53", "myc"], r"str\.upper\(\)"),
        (["TP53_ENSG00000141510.18", "MYC_ENSG00000136997"], r"str\.replace\(r'\^\.\*"),
    ],
)
def test_names_within_longer_names_are_refused_with_the_way_to_them(run, names, way):
    data = screen()[:, :2].copy()
    data.var = pd.DataFrame(index=names)
    refused(run, data, rf"As adata\.var_names\.{way}.* they are", min_counts=0)


def test_cells_without_a_label_may_be_the_controls(run):
    data = screen()
    data.obs["gene"] = data.obs["gene"].cat.remove_categories(["non-targeting"])
    facts, *_ = tables(run(data, control_label="none", min_counts=0))
    assert said(facts, "were dropped; if they are the controls, give them a label")


def test_upper_case_symbols_of_mouse_are_said(run):
    facts, *_ = tables(run(with_genes(pd.DataFrame(index=HUMAN)), organism="mouse", min_counts=0))
    assert said(facts, "if the cells are human, set organism to human")


def test_cells_of_two_organisms_are_said(run):
    facts, *_ = tables(run(with_genes(pd.DataFrame(index=[*HUMAN, *MOUSE[:4]])), min_counts=0))
    assert said(facts, "4 of 16 genes are spelt as mouse genes (such as 'Actb'), 12 as human: cells of two organisms?")


@pytest.mark.parametrize(
    ("names", "organism"),
    [
        (["MALAT1", "XIST", "H19"], "human"),  # none of them is in a relationship database
        (["C1orf112", "C9orf72"], "human"),  # a former symbol, and one with lower case
        ([*MOUSE, *(f"Gm{n}" for n in range(30))], "mouse"),  # half a panel of what our table lacks
        (["nan", "Cyp6a2"], "other"),
    ],
)
def test_valid_panels_are_taken(run, names, organism):
    assert tables(run(with_genes(pd.DataFrame(index=names)), organism=organism, min_counts=0))[0]["n_genes"] == len(names)


def test_what_is_known_and_how_it_is_spelt():
    symbol = np.array(["TP53", "Trp53", "tp53", "C9", "QQQ1"])
    none = np.full(5, "")
    assert known(none, symbol, "human").tolist() == [True, False, False, True, False]
    assert known(none, symbol, "mouse").tolist() == [True, True, True, True, False]
    assert check_organism(none, symbol, "other", "x") == []


# --- labels


@pytest.mark.parametrize("label", ["None", "none", "NA", "nan", "null", "N/A"])
@pytest.mark.parametrize("table", [False, True])
def test_a_control_label_counts_exactly_as_it_is_given(run, tmp_path, label, table):
    data = screen()
    gene = data.obs["gene"].astype(str).to_numpy()
    gene[gene == "non-targeting"] = label
    extra = ()
    if table:
        pd.DataFrame({"cell": data.obs_names, "target": gene}).to_csv(tmp_path / "cells.csv", index=False)
        extra, column = ("--cell-table", tmp_path / "cells.csv"), "target"
    else:
        data.obs["target"], column = gene, "target"
    facts, *_ = tables(run(data, extra=extra, perturbation_column=column, control_label=label, min_counts=0))
    assert (facts["n_controls"], facts["n_perturbations"], facts["n_cells"]) == (int((gene == label).sum()), 4, 120)


def test_none_says_that_there_are_no_controls_where_no_cell_is_labelled_so(run):
    for text in ("none", "None", ""):
        assert tables(run(screen(), control_label=text, min_counts=0))[0]["n_controls"] == 0


def test_missing_labels_are_the_same_in_every_format(run, tmp_path):
    data = screen()
    gene = data.obs["gene"].astype(str).to_numpy()
    gene[:6] = ["", "NA", "None", "nan", "null", " n/a "]
    data.obs["gene"] = gene
    inside = tables(run(data, min_counts=0))[2]
    pd.DataFrame({"cell": data.obs_names, "gene": gene}).to_csv(tmp_path / "cells.tsv", index=False, sep="\t")
    outside = tables(run(data, extra=("--cell-table", tmp_path / "cells.tsv"), min_counts=0))[2]
    pd.testing.assert_frame_equal(inside, outside)
    assert len(inside) == 114


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (np.array([0.1, 2.5], np.float32), ["0.1", "2.5"]),
        (np.array([0.1, 2.0]), ["0.1", "2.0"]),
        (np.array([1e-7, 1.0]), ["1e-07", "1.0"]),
        (np.array([3.0, 10.0], np.float32), ["3", "10"]),
        (pd.Categorical(np.array([0.1, 2.5], np.float32)), ["0.1", "2.5"]),
        (pd.Categorical([3.0, 10.0]), ["3", "10"]),
        (pd.array([1, None], dtype="Int64"), ["1", "?"]),
        (["1.50", "2.0"], ["1.50", "2.0"]),
    ],
)
def test_numbers_keep_the_form_in_which_they_are_written(values, expected):
    assert as_text(pd.Series(values)).fillna("?").to_list() == expected


def test_a_control_dose_may_be_written_as_a_number(run):
    data = screen()
    data.obs["dose"] = (np.arange(120) % 3).astype(np.float32)
    assert tables(run(data, perturbation_column="dose", control_label="0.0", min_counts=0))[0]["n_controls"] == 40


def test_a_data_set_may_be_called_na(run):
    facts, *_ = tables(run(screen(), name="NA"))
    assert (facts["name"], facts["title"]) == ("NA", "NA")


# --- combinations

GENES = {"A", "B", "C"}.__contains__


@pytest.mark.parametrize(
    ("labels", "controls", "expected"),
    [
        (["A+ctrl", "ctrl+A", "A"], ["ctrl"], {"A+ctrl": "A", "ctrl+A": "A"}),
        (["A+B", "B+A"], ["ctrl"], {"B+A": "A+B"}),
        (["B+A"], ["ctrl"], {}),  # one spelling stays as it is
        (["A;B", "B,A", "A|B"], [], {"A;B": "A+B", "B,A": "A+B", "A|B": "A+B"}),
        (["ctrl+ctrl"], ["ctrl"], {"ctrl+ctrl": "ctrl"}),
        (["A+NegCtrl0"], ["control"], {"A+NegCtrl0": "A"}),
        (["A+A"], [], {"A+A": "A"}),
        (["2,4-D", "(+)-JQ1"], ["DMSO"], {}),  # compounds
        (["A+ctrl"], ["A+ctrl"], {}),  # the control label as it is given
    ],
)
def test_combinations_go_by_one_name(labels, controls, expected):
    assert normalise(labels, controls, GENES) == expected


def test_other_signs_between_genes_are_noticed():
    assert joined_otherwise(["A_B", "A_NegCtrl0", "B/C", "A", "A_dose1", "x_y"], GENES) == ["A_B", "A_NegCtrl0", "B/C"]


def test_one_vocabulary_of_separators():
    assert split_genes("A+B;C,D|E") == ["A", "B", "C", "D", "E"]
    assert [is_combination(label) for label in ("A+B", "A;B", "A,B", "A|B", "A_B", "A")] == [True] * 4 + [False] * 2


@pytest.mark.parametrize("label", ["ctrl", "Control", "non-targeting", "NT", "NTC", "NegCtrl0", "negative_control_12", "DMSO"])
def test_controls_as_screens_spell_them(label):
    assert like_control(label)


@pytest.mark.parametrize("label", ["TP53", "NT5E", "NT5C", "NT5C2", "MOCOS", "SAFB", "TP53+ctrl"])
def test_genes_do_not_look_like_controls(label):
    assert not like_control(label)


def test_half_the_perturbations_are_not_the_other_half_in_another_order(run):
    data = screen(240)
    partner = np.where(np.arange(240) % 2, "{}+ctrl", "ctrl+{}")
    gene = data.obs["gene"].astype(str)
    data.obs["gene"] = [
        text.format(name) if name != "non-targeting" else "ctrl" for text, name in zip(partner, gene, strict=True)
    ]
    facts, report, cells, _ = tables(run(data, control_label="ctrl", perturbation_type="crispra", min_counts=0))
    assert set(cells["perturbation"]) == {"ctrl", "TP53", "MYC", "EGFR", "KRAS"}
    assert (report["genes"]["perturbed"], facts["n_perturbations"]) == (4, 4)
    assert said(facts, "8 combinations were renamed")


def test_combinations_joined_by_another_sign_are_said(run):
    data = screen()
    data.obs["gene"] = data.obs["gene"].astype(str).replace({"TP53": "TP53_MYC", "EGFR": "EGFR_NegCtrl0"})
    facts, *_ = tables(run(data, min_counts=0))
    assert said(facts, "2 perturbations look like combinations joined by another sign")


@pytest.mark.parametrize("other", ["tp53", "TP53\u200b", "T P53", "\uff34P53"])
def test_a_perturbation_in_two_spellings_is_said(run, other):
    data = screen()
    names = data.obs["gene"].astype(str).to_numpy()
    data.obs["gene"] = np.where((names == "TP53") & (np.arange(len(names)) % 2 == 0), other, names)
    facts, *_ = tables(run(data, min_counts=0))
    assert said(
        facts, f"1 perturbations occur in two spellings, which count as two (such as {'TP53'!a} and {other!a})"
    ) or said(facts, f"such as {other!a} and {'TP53'!a})")


@pytest.mark.parametrize(("label", "meant"), [("control", "'non-targeting'"), ("ntc", "'non-targeting'"), ("TP35", "'TP53'")])
def test_a_control_label_of_no_cell_names_what_is_spelt_like_controls(run, label, meant):
    """It listed thirty genes, though the controls were easily told among them."""
    data = screen(200)
    data.obs["gene"] = data.obs["gene"].astype(str)
    if label == "TP35":
        data.obs["gene"] = data.obs["gene"].replace("non-targeting", "AAVS1")
    refused(run, data, f"Did you mean {meant}", control_label=label)


@pytest.mark.parametrize("label", ["Doublet", "unassigned", "Negative", "no_guide", "Multiple guides"])
def test_cells_without_one_guide_are_not_taken_for_a_perturbation_in_silence(run, label):
    data = screen(200)
    data.obs["gene"] = data.obs["gene"].astype(str).replace("MYC", label)
    facts, *_ = tables(run(data))
    assert said(facts, f"reads as none: '{label}' (")


@pytest.mark.parametrize(
    ("first", "second"),
    [("{}_1", "{}_2"), ("sg{}-1", "sg{}-2"), ("{}_+_5371.2-P1P2", "{}_-_81.2-P1P2"), ("{0}_1|{0}_2", "{0}_3|{0}_4")],
)
def test_guides_in_the_place_of_genes_are_said(run, first, second):
    """They were scored as so many perturbations, of which no relationship is known."""
    data, form = screen(400), (first, second)
    names = data.obs["gene"].astype(str)
    data.obs["gene"] = [name if name == "non-targeting" else form[n % 2].format(name) for n, name in enumerate(names)]
    facts, *_ = tables(run(data, perturbation_type="crispri"))
    assert said(facts, f"{2 * 4 * (1 + ('|' in first))} names of perturbations look like guides of 4 genes")


@pytest.mark.parametrize("names", [["NKX2-1", "NKX2-2", "HLA-A", "MT-ND1"], ["TP53_1", "MYC_1", "EGFR_1", "KRAS_1"]])
def test_one_label_per_gene_is_no_list_of_guides(run, names):
    """Genes whose symbols end with a number, and one guide per gene, which is as good as the gene."""
    data = screen(200)
    genes = dict(zip(("TP53", "MYC", "EGFR", "KRAS"), names, strict=True))
    data.obs["gene"] = [genes.get(name, name) for name in data.obs["gene"].astype(str)]
    assert not said(tables(run(data))[0], "look like guides")


def test_a_column_of_batches_without_a_label_is_named(run):
    data = screen(100)
    data.obs["batch"] = np.nan
    refused(run, data, "100 cells have no label in the batch_column 'batch', and are left out. Name another column, or none")


def test_a_measurement_in_the_place_of_perturbations_is_said(run):
    data = screen(200)
    data.obs["n_umis"] = np.arange(200)
    facts, *_ = tables(run(data, perturbation_column="n_umis", control_label="none"))
    assert said(facts, "The perturbation_column 'n_umis' holds 200 different numbers")


def test_another_spelling_of_the_control_label_is_said(run):
    data = screen()
    data.obs["gene"] = data.obs["gene"].astype(str).replace({"KRAS": "Non_Targeting", "EGFR": "ctrl"})
    facts, *_ = tables(run(data, min_counts=0))
    assert said(facts, "spelt like a control: 'Non_Targeting'") or said(facts, "spelt like a control: 'ctrl'")
    assert said(facts, "non-targeting;")


GUIDES = [f"non-targeting_{number:04d}" for number in range(24)]


def per_guide():
    """A screen whose controls are labelled by guide."""
    data = screen(240)
    gene = data.obs["gene"].astype(str).to_numpy()
    data.obs["gene"] = np.where(gene == "non-targeting", np.resize(GUIDES, 240), gene)
    return data, (gene == "non-targeting").sum()


@pytest.mark.parametrize("label", ["non-targeting_*", "non-targeting_000*;non-targeting_001*;non-targeting_002*"])
def test_a_star_stands_for_control_labels_that_begin_alike(run, label):
    data, n_controls = per_guide()
    facts, report, *_ = tables(run(data, control_label=label, min_counts=0))
    assert (facts["n_controls"], facts["n_perturbations"]) == (n_controls, 4)
    assert set(report["perturbations"]["control_labels"]) <= set(GUIDES)


def test_a_label_that_ends_with_a_star_is_itself(run):
    data = screen()
    data.obs["gene"] = data.obs["gene"].astype(str).replace({"non-targeting": "TP5*"})
    facts, *_ = tables(run(data, control_label="TP5*", min_counts=0))
    assert facts["n_controls"] == (data.obs["gene"] == "TP5*").sum()


def test_the_way_to_name_many_control_labels_is_said(run):
    data, _ = per_guide()
    refused(
        run,
        data,
        r"labels begin so \(such as 'non-targeting_0000'\): 'non-targeting\*' names all",
        control_label="non-targeting",
    )
    refused(run, data, r"matches no cell.*Known|matches no cell.*Did you mean", control_label="safe-harbour*")
    facts, *_ = tables(run(data, control_label=GUIDES[0], min_counts=0))
    assert said(facts, "others. If it is one, set control_label to 'non-targeting_*'")
    data.obs["gene"] = data.obs["gene"].astype(str).replace({"TP53": "non-targeting_gene"})  # a perturbation that begins so
    facts, *_ = tables(run(data, control_label=GUIDES[0], min_counts=0))
    assert said(facts, f"set control_label to '{GUIDES[0]};")
