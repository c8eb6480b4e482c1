"""scVI's scores by likelihood, and the effect of log-normalised input."""

import numpy as np
import pandas as pd

from plumbline.report.figures import OKABE_ITO, bare, image, legend_below, panels
from plumbline.report.run import Run
from plumbline.report.words import escape, listed, metric_title, number, section, table, task_title, with_interval
from plumbline.scoring.protocol import POSTPROCESSINGS

VARIANTS = {"scvi": "ZINB", "scvi_nb": "NB", "scvi_poisson": "Poisson", "scvi_lognorm": "ZINB, log-normalised input"}
LIKELIHOODS = {"zinb": "scvi", "nb": "scvi_nb", "poisson": "scvi_poisson"}
COLOURS = dict(zip(VARIANTS, (OKABE_ITO[2], OKABE_ITO[0], OKABE_ITO[4], OKABE_ITO[7]), strict=True))
MARKS = dict(zip(VARIANTS, "so^x", strict=True))
CHOSEN = "selected"


def score_sections(run: Run, supported: dict[str, str], parent: dict) -> list[dict]:
    """One section: for every data set a figure (task x post-processing x likelihood) and the table of chosen scores."""
    content = []
    for name in run.datasets:
        rows = chosen_scores(run, name)
        if rows.empty or rows["variant"].nunique() < 2:
            continue
        words = " ".join(filter(None, (verdict(run, name, supported.get(name, "")), lognorm_cost(run, name))))
        figure = image(_figure(run, name, rows), f"{words} The numbers are in the table.")
        content.append(f"<h4>{escape(run.title(name))}</h4><p>{escape(words)}</p>{figure}{_table(run, rows)}")
    about = (
        "Main metric of every task for scVI with each likelihood, by post-processing and as chosen on the validation part, "
        "with 95 % intervals; corrected protocol. The paper's variant has log-normalised values instead of counts as input."
    )
    if not content:
        return []
    return [section("count_distribution_scores", "2 Scores of scVI by likelihood", about, "".join(content), **parent)]


def chosen_scores(run: Run, dataset: str) -> pd.DataFrame:
    """Headline rows of the four variants: corrected protocol, main metric, chosen post-processing."""
    rows = run.experiment("count_distribution")
    rows = rows[(rows["dataset"] == dataset) & rows["variant"].isin(list(VARIANTS))]
    rows = rows[(rows["status"] == "ok") & rows["value"].notna()]
    return rows.sort_values("fit_on", key=lambda fit_on: fit_on != "train").drop_duplicates(["task", "variant"])


def verdict(run: Run, dataset: str, supported: str) -> str:
    """Whether the likelihood that the data support is also the one that scores best; '' without scores."""
    rows, own = chosen_scores(run, dataset), LIKELIHOODS.get(supported, "")
    tasks = [part for part in _by_task(rows, LIKELIHOODS.values()) if own in part.index and len(part) > 1]
    if not tasks:
        return ""
    best = [(part["value"] * part["direction"]).idxmax() for part in tasks]
    ahead = [VARIANTS[other] for part, other in zip(tasks, best, strict=True) if other != own and _ahead(part, other, own)]
    behind = sum(any(_ahead(part, own, other) for other in part.index if other != own) for part in tasks)
    text = f"scVI with {VARIANTS[own]}, which the data support, scores best in {best.count(own)} of {len(tasks)} tasks"
    if ahead:
        names = listed(sorted(set(ahead)))
        return f"{text}; in {len(ahead)} another is significantly better ({names}): the scores do not follow the data."
    if behind:
        return f"{text}; in {behind} it is significantly better than another, in none worse: the scores follow the data."
    return f"{text}; no likelihood is significantly better or worse: the scores do not distinguish them."


def lognorm_cost(run: Run, dataset: str) -> str:
    """The effect of log-normalised input to a count likelihood; '' where that was not run."""
    both = ("scvi", "scvi_lognorm")
    tasks = [part for part in _by_task(chosen_scores(run, dataset), both) if len(part) == 2]
    if not tasks:
        return ""
    changes = [(part["value"]["scvi_lognorm"] - part["value"]["scvi"]) * part["direction"].iloc[0] for part in tasks]
    titles = [task_title(part["task"].iloc[0]) for part in tasks]
    each = listed([f"{title} {number(change, sign=True)}" for title, change in zip(titles, changes, strict=True)])
    worse, better = (sum(_ahead(part, *pair) for part in tasks) for pair in (both, both[::-1]))
    return (
        f"With log-normalised input, as in the paper, scVI (ZINB) scores lower in {sum(change < 0 for change in changes)} of "
        f"{len(changes)} tasks; significantly worse in {worse}, better in {better} (change, positive is better: {each})."
    )


def _by_task(rows: pd.DataFrame, variants) -> list[pd.DataFrame]:
    """The rows of some variants, indexed by variant, task by task."""
    rows = rows[rows["variant"].isin(list(variants))]
    return [part.set_index("variant") for _, part in rows.groupby("task", sort=False)]


def _ahead(part: pd.DataFrame, a: str, b: str) -> bool:
    """Whether variant a is significantly better than b: by the paired test where one of them is scvi, which the others were
    compared with; else (conservative) if their 95 % intervals do not overlap."""
    if "scvi" in (a, b):
        return part["verdict"][a] == "better" if b == "scvi" else part["verdict"][b] == "worse"
    ends = [sorted(part["direction"][name] * part.loc[name, ["ci_low", "ci_high"]].astype(float)) for name in (a, b)]
    return bool(np.isfinite(ends).all() and ends[0][0] > ends[1][1])


def _figure(run: Run, dataset: str, rows: pd.DataFrame):
    tasks = [task for task in run.tasks if task in set(rows["task"])]
    figure, axes = panels(len(tasks), (3.9, 2.9))
    for axis, task in zip(axes, tasks, strict=True):
        _panel(axis, run, dataset, rows[rows["task"] == task])
    legend_below(figure, axes, 4)
    return figure


def _panel(axis, run: Run, dataset: str, rows: pd.DataFrame) -> None:
    task, metric, places = rows["task"].iloc[0], rows["metric"].iloc[0], [*POSTPROCESSINGS, CHOSEN]
    scores = run.all_scores
    scores = scores[(scores["dataset"] == dataset) & (scores["task"] == task) & (scores["metric"] == metric)]
    scores = scores[(scores["protocol"] == "corrected") & (scores["status"] == "ok")]
    for shift, (variant, title) in zip(np.linspace(-0.24, 0.24, len(VARIANTS)), VARIANTS.items(), strict=True):
        own = rows[rows["variant"] == variant]
        if own.empty:
            continue
        part = scores[(scores["variant"] == variant) & (scores["fit_on"] == own["fit_on"].iloc[0])]
        means = part.groupby("postprocess")[["value", "ci_low", "ci_high"]].mean()  # over seeds
        means.loc[CHOSEN] = own[["value", "ci_low", "ci_high"]].iloc[0].astype(float)
        means = means.reindex(places)
        x = np.arange(len(places)) + shift
        axis.vlines(x, means["ci_low"], means["ci_high"], color=COLOURS[variant], linewidth=1.3)
        axis.plot(x, means["value"], MARKS[variant], color=COLOURS[variant], markersize=5, label=title)
    axis.set_xticks(range(len(places)), [name.replace("_", "\n") for name in [*POSTPROCESSINGS, "chosen"]], fontsize=7.5)
    axis.axvspan(len(POSTPROCESSINGS) - 0.5, len(POSTPROCESSINGS) + 0.5, color="#f0f0f0", zorder=0)
    axis.set_title(task_title(task), fontsize=9, loc="left", fontweight="bold")
    axis.set_ylabel(metric_title(metric) + (" (lower is better)" if rows["direction"].iloc[0] < 0 else ""), fontsize=7.5)
    axis.tick_params(axis="y", labelsize=7.5)
    bare(axis)


def _table(run: Run, rows: pd.DataFrame) -> str:
    names = [variant for variant in VARIANTS if variant in set(rows["variant"])]
    body = []
    for task in [task for task in run.tasks if task in set(rows["task"])]:
        part = rows[rows["task"] == task].set_index("variant")
        metric = part["metric"].iloc[0]
        cells = [_cell(part.loc[name], metric) if name in part.index else "–" for name in names]
        body.append([task_title(task), metric_title(metric), *(f'<td class="n">{cell}</td>' for cell in cells)])
    return f'<div class="pl-scroll">{table(["Task", "Metric", *(VARIANTS[name] for name in names)], body)}</div>'


def _cell(row: pd.Series, metric: str) -> str:
    return f"{with_interval(row['value'], row['ci_low'], row['ci_high'], metric)}<br>{escape(str(row['chosen']))}"
