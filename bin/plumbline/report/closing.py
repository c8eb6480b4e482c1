"""Last sections: what has no score and why; how it was done and what to cite."""

from plumbline.report.run import Run
from plumbline.report.sentences import plain_reason
from plumbline.report.words import VERDICTS, escape, listed, section, table, task_title

METHODS = """<p>Each embedding was scored by the tasks of Bendidi et al. (2024) with plumbline under two protocols.
<code>paper</code> computes what the paper and its code compute. <code>corrected</code>, the headline of this report, chooses
a post-processing (none, centring, centre-scaling, typical variation normalisation) for each model and task on a validation
part and reports the rest. Scores are means over split seeds ({seeds}). Intervals are 95 % percentile bootstrap intervals
({n_boot} resamples, expanded for few units as Hesterberg 2015; Student's t below 8 units)
over perturbations, batches or genes, whichever the
task treats as exchangeable, and over what these share: controls, the threshold of Benjamini and Hochberg, the choice of a
post-processing; for pairs of genes, genes are resampled and pairs with a gene in common are dependent (Aronow et al. 2015).
Models are compared with {baseline} on the
units that both have, with shared resampling weights; p values refer the difference over its bootstrap standard error to
Student's t and are adjusted within a data set over all pairs of its models and its main metrics (Benjamini and Hochberg 1995);
rank intervals rest on the same tests. Nothing was tested on fewer than 8 units, by a metric whose
intervals do not hold their level on simulated screens, between two scores of which neither is above
the floor, or where the ceiling is not above it. Calibrated score = (score − floor) / (ceiling − floor), the floor being chance
or the best of the random, scrambled and untrained embeddings and the ceiling an embedding made of the labels or split halves of
the data; it is left out where the ceiling is not clearly above the floor or a model passes it.</p>"""
REFERENCES = [
    "Bendidi I, et al. Benchmarking transcriptomics foundation models for perturbation analysis: one PCA still rules them all. "
    "arXiv:2410.13956 (2024).",
    "Celik S, et al. Building, benchmarking, and exploring perturbative maps of transcriptional and morphological data. "
    "PLOS Comput Biol, doi:10.1371/journal.pcbi.1012463 (2024).",
    "Hesterberg TC. What teachers should know about the bootstrap. Am Stat 69:371 (2015).",
    "Aronow PM, Samii C, Assenova VA. Cluster-robust variance estimation for dyadic data. Polit Anal 23:564 (2015).",
    "Benjamini Y, Hochberg Y. Controlling the false discovery rate. J R Stat Soc B 57:289 (1995).",
    "Ewels P, et al. MultiQC: summarize analysis results for multiple tools and samples in a single report. "
    "Bioinformatics 32:3047 (2016).",
    "Di Tommaso P, et al. Nextflow enables reproducible computational workflows. Nat Biotechnol 35:316 (2017).",
]


def absent_section(run: Run) -> list[dict]:
    """Every score that is missing, and why: not applicable and failed are not zero."""
    table_ = run.comparisons
    table_ = table_.assign(reason=table_["reason"].map(plain_reason))
    gone = table_[(table_["status"] != "ok") & ~((table_["role"] == "predictor") & (table_["status"] == "not_applicable"))]
    if gone.empty:
        return []
    body = []
    for (status, reason), rows in sorted(gone.groupby(["status", "reason"]), key=lambda part: part[0]):
        symbol, word, colour, _ = VERDICTS[status]
        tasks = [task_title(task) for task in run.tasks if task in set(rows["task"])]
        mark = f'<b style="color:{colour}">{symbol} {word}</b>'
        sets = listed([escape(run.title(name)) for name in sorted(set(rows["dataset"]))], 8)
        body.append(
            [mark, escape(reason), sets, listed([escape(n) for n in sorted(set(rows["label"]))], 8), escape(listed(tasks))]
        )
    about = "A model that cannot take a data set, a step that failed and a score of 0 are three different results."
    return [
        section("absent", "Not applicable and failed", about, table(["Result", "Reason", "Data sets", "Models", "Tasks"], body))
    ]


def methods_section(run: Run) -> dict:
    """A methods text to adapt, with what to cite."""
    seeds = ", ".join(map(str, run.about["seeds"]))
    text = METHODS.format(seeds=seeds, n_boot=run.about["n_boot"], baseline=escape(run.baseline))
    cited: dict[str, list[str]] = {}
    for row in run.about["models"].values():
        if row.get("citation"):
            cited.setdefault(row["citation"], []).append(row["title"])
    models = [f"{citation}: {listed(titles, 10)}" for citation, titles in cited.items()]
    cites = "".join(f"<li>{escape(line)}</li>" for line in [*REFERENCES, *models])
    return section(
        "methods", "Methods", "Text to adapt, and what to cite.", f"{text}<h4>Cite</h4><ul class='pl-says'>{cites}</ul>"
    )
