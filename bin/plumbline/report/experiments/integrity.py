"""How structural integrity and other metrics respond to known damage."""

import json
from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.experiments.integrity_reading import SHOWN, interval, judged, scaled, sensitivity, specificity
from plumbline.report.figures import OKABE_ITO, bare, image, legend_below, panels
from plumbline.report.run import Run
from plumbline.report.words import escape, listed, section, table, with_interval

NAME = "integrity"
PARENT = {
    "parent_id": "plumbline_integrity",
    "parent_name": "Experiment: structural integrity under test",
    "parent_description": "Good predictions of held-out cells are damaged by known amounts: a metric should fall where the "
    "prediction gets worse, and not change where only the controls or the batches change.",
}
METRICS = {
    "structural_integrity": "structural integrity of cells",
    "effect_pearson": "Pearson of mean effects",
    "effect_integrity": "structural integrity of mean effects",
    "mse": "mean squared error",
    "energy_distance": "energy distance",
    "spearman": "Spearman per gene",
}
COLOURS = dict(zip(METRICS, (OKABE_ITO[place] for place in (0, 4, 5, 1, 2, 3)), strict=True))
MARKS = dict(zip(METRICS, "o^PsDv", strict=True))
DAMAGES = {
    "noise": ("noise added", "size, in sd of the truth"),
    "mean_only": ("shrunk to the mean prediction", "share"),
    "effect_erased": ("perturbation effect removed", "share"),
    "own_erased": ("cell-to-cell variation removed", "share"),
    "genes_shuffled": ("effects on wrong genes", "share of genes"),
    "wrong_scale": ("effects too large", "excess factor"),
    "batch_leaked": ("shift of another batch", "share of its shift"),
    "labels_swapped": ("perturbations swapped", "share of perturbations"),
    "batch_shifted": ("batch shift, controls included", "share of its shift"),
    "fewer_controls": ("controls removed", "share of controls"),
    "tiny_batches": ("batches split", "parts per batch"),
    "without_controls": ("batches without controls", "share of batches"),
}
FEW = 5  # median cells per perturbation below which its mean is mostly noise
_FLOOR = -1.0  # lower end of the figure


def sections(run: Run, folder: Path) -> list[dict]:
    """A recommendation, a figure and two tables for every data set."""
    content = []
    for name in run.datasets:
        path = folder / f"{name}.{NAME}.json"
        if not path.exists():
            continue
        about, title = json.loads(path.read_text()), escape(run.title(name))
        if about["status"] != "ok":
            content.append(f"<h4>{title}</h4><p>Not applicable: {escape(about['reason'])}.</p>")
            continue
        content.append(f"<h4>{title}</h4>{_dataset(pd.read_parquet(folder / f'{name}.{NAME}.parquet'), about)}")
    description = (
        "Metrics by level of damage, scaled so that 1 is the undamaged prediction and 0 is no effect predicted; bars: 95 % "
        "intervals. White panels: the prediction gets worse. Grey panels: it does not, and a metric should stay at 1."
    )
    return [section("integrity_ablation", "Damage and response", description, "".join(content), **PARENT)] if content else []


def _dataset(values: pd.DataFrame, about: dict) -> str:
    curves = scaled(values)
    sensitive, specific = sensitivity(curves), specificity(curves)
    words = f"{recommendation(sensitive, specific)} {anchors(values)}"
    few = about["cells_median"] < FEW
    words += " With so few cells per perturbation, mean effects contain much cell-to-cell variation." if few else ""
    used = (f"{about['n_cells']:,} of {about['n_cells_test']:,} test2 cells of {about['n_perturbations']} perturbations "
            f"(median {about['cells_median']:g} cells), "
            f"{about['n_controls']:,} controls, {about['n_batches']} batches, {about['n_genes']:,} most expressed genes of "
            f"{about['n_genes_total']:,}; {about['replicates']} random halves of the {about['halves_of']}.")  # fmt: skip
    parts = [f"<p>{escape(words)}</p><p>{escape(used)}</p>", image(_figure(curves), words), _sensitivity_table(sensitive)]
    return "".join([*parts, _specificity_table(specific)])


def recommendation(sensitive: pd.DataFrame, specific: pd.DataFrame) -> str:
    """What to report, from the numbers."""
    verdicts = judged(sensitive, specific)
    own = verdicts.loc["structural_integrity"]
    n, m = len(own["detected"]) + len(own["missed"]), specific["damage"].nunique()
    missed = f" (not: {_names(own['missed'])})" if own["missed"] else ""
    changed = (
        f"also changes with {_names(own['changed_by'])}" if own["changed_by"] else f"is unchanged in all {m} harmless ones"
    )
    text = f"Structural integrity detects {len(own['detected'])} of {n} kinds of damage{missed} and {changed}."
    rows = sensitive.set_index(["damage", "metric"])
    drops = [_drop(rows.loc[(damage, "structural_integrity")]) for damage in ("effect_erased", "own_erased")]
    text += (
        f" Removing all perturbation effects costs {drops[0]} of its range; removing cell-to-cell variation costs {drops[1]}."
    )
    weak = [d for d in rows.index.get_level_values(0).unique() if rows.loc[(d, "structural_integrity"), "drop"] < 0.5]
    others = verdicts.drop("structural_integrity")
    gain = {
        metric: sum(rows.loc[(d, metric), "drop"] >= 0.5 for d in weak if d in row["detected"])
        for metric, row in others.iterrows()
    }
    best = max(gain, key=lambda metric: (gain[metric], -len(others.loc[metric, "changed_by"])))
    if not weak or not gain[best]:
        return f"{text} No other metric detects more: structural integrity suffices here."
    helped = [d for d in weak if d in others.loc[best, "detected"] and rows.loc[(d, best), "drop"] >= 0.5]
    by = others.loc[best, "changed_by"]
    caution = f", although it also changes with {_names(by)}" if by else ""
    why = f"which loses half its range or more where structural integrity does not ({_names(helped)})"
    return f"{text} Recommended: report it with {METRICS[best]}, {why}{caution}."


def anchors(values: pd.DataFrame) -> str:
    """Whether no effect predicted gives 0.5 and a perfect prediction 1, as measured."""
    rows = values[(values["kind"] == "reference") & (values["metric"] == "structural_integrity")]
    ends = [
        np.ptp(np.append(rows.loc[rows["damage"] == name, "value"], at)) for name, at in (("no_effect", 0.5), ("perfect", 1.0))
    ]
    if max(ends) < 1e-9:
        return "No effect predicted gives 0.5 and a perfect prediction 1, exactly."
    return f"No effect predicted and a perfect prediction differ from 0.5 and 1 by up to {max(ends):.1g}."


def _names(damages: list[str]) -> str:
    return listed([DAMAGES[name][0] for name in damages])


def _drop(row: pd.Series) -> str:
    value, low, high = (100 * row[name] for name in ("drop", "low", "high"))
    return f"{value:.0f} % [{low:.0f}, {high:.0f}]"


def _figure(curves: pd.DataFrame):
    shown = [name for name in DAMAGES if name in set(curves["damage"])]
    figure, axes = panels(len(shown), (2.875, 2.5), border=(0, 0.4), columns=4, sharey=True)
    for axis, name in zip(axes, shown, strict=True):
        _panel(axis, name, curves[curves["damage"] == name])
    legend_below(figure, axes, len(METRICS))
    figure.supylabel("1 = undamaged, 0 = no effect", fontsize=8.5)
    return figure


def _panel(axis, name: str, rows: pd.DataFrame) -> None:
    levels = np.sort(rows["level"].unique())
    for shift, metric in zip(np.linspace(-0.16, 0.16, len(SHOWN)), SHOWN, strict=True):
        own = rows[rows["metric"] == metric].groupby("level")["value"]
        curve = np.array([(1.0, 1.0, 1.0), *(interval(own.get_group(level).to_numpy()) for level in levels)])
        x, drawn = np.arange(len(curve)) + shift, np.clip(curve, _FLOOR, None)
        axis.vlines(x, drawn[:, 1], drawn[:, 2], color=COLOURS[metric], linewidth=1.2)
        axis.plot(
            x, drawn[:, 0], MARKS[metric] + "-", color=COLOURS[metric], markersize=4, linewidth=0.9, label=METRICS[metric]
        )
    axis.axhline(0, color="#777777", linewidth=0.8)
    first = "1" if name == "tiny_batches" else "0"
    axis.set_xticks(range(len(levels) + 1), [first, *(f"{level:g}" for level in levels)], fontsize=7.5)
    axis.set_ylim(_FLOOR - 0.08, 1.5)
    axis.set_title(DAMAGES[name][0], fontsize=9, loc="left", fontweight="bold")
    axis.set_xlabel(DAMAGES[name][1], fontsize=7.5)
    axis.tick_params(axis="y", labelsize=7.5)
    bare(axis)
    if (rows["kind"] == "indifferent").all():
        axis.set_facecolor("#f2f2f2")


def _sensitivity_table(sensitive: pd.DataFrame) -> str:
    rows = sensitive.set_index(["damage", "metric"])
    body = []
    for damage in [name for name in DAMAGES if name in set(sensitive["damage"])]:
        body.append([DAMAGES[damage][0], *(_sensitive_cell(rows.loc[(damage, metric)]) for metric in SHOWN)])
    caption = "Share of its range that a metric loses at the largest level; ρ with the level; smallest significant level."
    shown = table(["Damage", *(METRICS[name] for name in SHOWN)], body)
    return f'<p><small>{caption}</small></p><div class="pl-scroll">{shown}</div>'


def _sensitive_cell(row: pd.Series) -> str:
    rho = f"{row['rho']:.2f} [{row['rho_low']:.2f}, {row['rho_high']:.2f}]".replace("-", "−")
    first = "none" if np.isnan(row["first"]) else f"{row['first']:g}"
    return f'<td class="n">{_drop(row)}<br>ρ {rho}; from {first}</td>'


def _specificity_table(specific: pd.DataFrame) -> str:
    rows = specific.set_index(["damage", "metric"])
    body = []
    for damage in [name for name in DAMAGES if name in set(specific["damage"])]:
        cells = [rows.loc[(damage, metric)] for metric in SHOWN]
        changes = [
            f'<td class="n">{with_interval(r["change"], r["low"], r["high"], sign=True)}<br>at {r["level"]:g}</td>'
            for r in cells
        ]
        body.append([DAMAGES[damage][0], *changes])
    caption = "Largest change although the prediction is as good, as a share of the range."
    shown = table(["Harmless change", *(METRICS[name] for name in SHOWN)], body)
    return f'<p><small>{caption}</small></p><div class="pl-scroll">{shown}</div>'
