"""Last section: a methods text to paste, with its references and versions."""

from importlib.metadata import PackageNotFoundError, version

from plumbline import __version__
from plumbline.report.page import assets
from plumbline.report.run import Run
from plumbline.report.words import escape, listed, section
from plumbline.scoring.protocol import REFERENCES

BENDIDI, CELIK, HESTERBERG, ARONOW, BENJAMINI, EWELS, DI_TOMMASO, MCINNES = (
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
    "McInnes L, Healy J, Melville J. UMAP: uniform manifold approximation and projection for dimension reduction. "
    "arXiv:1802.03426 (2018).",
)
LIBRARIES = (
    "numpy",
    "scipy",
    "pandas",
    "numba",
    "faiss-cpu",
    "torch",
    "umap-learn",
)  # what the scores and maps are computed with


class _Cited:
    """References in the order in which the text cites them."""

    def __init__(self) -> None:
        self.sources: list[str] = []

    def __call__(self, *sources: str) -> str:
        """'[1,2]'; '' for no source."""
        numbers = [str(self._number(source)) for source in dict.fromkeys(sources) if source]
        return f" [{','.join(numbers)}]" if numbers else ""

    def _number(self, source: str) -> int:
        known = [place for place, cited in enumerate(self.sources, 1) if source in cited]  # arXiv:2410.13956 alone, or in full
        if not known:
            self.sources.append(source)
        return known[0] if known else len(self.sources)


def methods_section(run: Run, citations: dict[str, str]) -> dict:
    """A methods text to paste. citations: data set -> what to cite for its data, as far as known."""
    text = escape(methods_text(run, citations))
    button = '<button type="button" class="pl-button" data-pl-copy="pl-methods-text">Copy the text</button>'
    about = "A text to paste and to adapt. Versions of all tools of this run are under Software Versions."
    return section("methods", "Methods", about, f'{button}<pre class="pl-text" id="pl-methods-text">{text}</pre>{assets()}')


def methods_text(run: Run, citations: dict[str, str]) -> str:
    """Plain text: data, models, scores, statistics, software, and the numbered references."""
    cite = _Cited()
    parts = [_scores(run, cite), _data(run, cite, citations), _models(run, cite), _statistics(run, cite), _software(cite)]
    references = [f"{number}. {source}" for number, source in enumerate(cite.sources, 1)]
    return "\n\n".join([*parts, "References\n" + "\n".join(references)])


def _scores(run: Run, cite: _Cited) -> str:
    return (
        f"Embeddings of single cells were evaluated with plumbline {__version__} by the tasks of Bendidi et al."
        f"{cite(BENDIDI)}, under the protocol “corrected”, which chooses a post-processing (none, centring, centre-scaling, "
        "typical variation "
        f"normalisation{cite(CELIK)}) for each model and task on a validation part and reports the rest. "
        f"Scores are means over split seeds ({', '.join(map(str, run.about['seeds']))})."
    )


def _data(run: Run, cite: _Cited, citations: dict[str, str]) -> str:
    told = []
    for name in run.datasets:
        facts = run.about["datasets"].get(name, {}).get("facts", {})
        counts = [(facts.get(f"n_{noun}"), noun) for noun in ("cells", "perturbations", "batches", "genes")]
        sizes = ", ".join(f"{count:,} {noun}" for count, noun in counts if count is not None and count > 1)
        told.append(f"{run.title(name)}{cite(citations.get(name, ''))}" + (f" ({sizes})" if sizes else ""))
    return f"Data: {'; '.join(told)}."


def _models(run: Run, cite: _Cited) -> str:
    candidates = run.headline[~run.headline["role"].isin(REFERENCES)]
    found = candidates.drop_duplicates("variant").set_index("variant")
    told = []
    for variant in sorted(found.index, key=lambda name: run.models.index(found.loc[name, "label"])):
        row = run.about["models"].get(variant, {})
        details = [row.get("settings") or "", f"checkpoint {row['weights_revision']}" if row.get("weights_revision") else ""]
        shown = "; ".join(part for part in details if part)
        told.append(run.titles.get(variant, variant) + cite(row.get("citation") or "") + (f" ({shown})" if shown else ""))
    return f"Models: {'; '.join(told)}." if told else "Models: none was scored."


def _statistics(run: Run, cite: _Cited) -> str:
    return (
        f"Intervals are 95 % percentile bootstrap intervals ({run.about['n_boot']} resamples, expanded for few units"
        f"{cite(HESTERBERG)}; Student's t below 8 units) over perturbations, batches or genes, whichever the task treats as "
        "exchangeable, and over what these share: controls, the threshold of Benjamini and Hochberg, the choice of a "
        f"post-processing; of pairs of genes, those with a gene in common are dependent{cite(ARONOW)}. "
        f"Models were compared with {run.baseline} on the "
        "units that both have, with shared resampling weights; p values refer the difference over its bootstrap standard error "
        "to Student's t and were adjusted within a data set over all pairs of its models and its main metrics"
        f"{cite(BENJAMINI)}; rank intervals rest on the same tests. Nothing was tested on fewer than 8 units, by a metric "
        "whose intervals do not hold their level, between two "
        "scores of which neither is above the floor, or where the ceiling is not above it. Calibrated score = (score − floor) "
        "/ (ceiling − floor), the floor being chance or the best of the random, scrambled and untrained embeddings and the "
        "ceiling an embedding made of the labels or split halves of the data; it is left out where the ceiling is not clearly "
        "above the floor or a model passes it."
    )


def _software(cite: _Cited) -> str:
    known = [(name, _version(name)) for name in LIBRARIES]
    libraries = listed([f"{name} {found}" for name, found in known if found], len(known))
    return (
        f"Software: plumbline {__version__}, run by Nextflow{cite(DI_TOMMASO)}, with {libraries}; maps by UMAP{cite(MCINNES)}; "
        f"report by MultiQC{cite(EWELS)}."
    )


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
