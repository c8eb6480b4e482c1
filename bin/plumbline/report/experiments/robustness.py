"""Robustness: scores of embeddings of damaged counts, paired with the same model on the undamaged counts."""

import numpy as np
import pandas as pd

from plumbline.report.figures import image, legend_below, panels, small_panel, style, wrapped
from plumbline.report.run import Run
from plumbline.report.words import (
    VERDICTS,
    escape,
    metric_title,
    number,
    section,
    table,
    task_title,
    verdict_counts,
    with_interval,
)

PARENT = {
    "parent_id": "plumbline_robustness",
    "parent_name": "Experiment: robustness",
    "parent_description": "Embeddings of the same cells from fewer counts, or from fewer genes, compared with those "
    "of all counts.",
}


def sections(run: Run, _folder) -> list[dict]:
    """Scores by damage, in a figure and in words, and the table."""
    rows = retained(run.experiment("robustness"))
    good = rows[rows["status"] == "ok"]
    if good.empty:
        return []
    about = (
        "Left: all counts; then less and less. Points: score with its 95 % interval. Tasks that read expression read the "
        "undamaged counts. Dotted: the floor."
    )
    figure = image(_figure(run, good), "Scores by damage; the numbers are in the table below.")
    lines = "".join(f"<li>{line}</li>" for line in sentences(run, good))
    parts = [section("robustness_curves", "Scores by damage", about, f"<ul class='pl-says'>{lines}</ul>{figure}", **PARENT)]
    return [*parts, _table(run, rows)]


def retained(rows: pd.DataFrame) -> pd.DataFrame:
    """The rows with columns damage, and kept, kept_low and kept_high: percent of the undamaged advantage over the floor.

    The interval is that of the paired difference, over the undamaged advantage; empty where that advantage is not significant.
    """
    rows = rows.assign(damage=rows["fit_on"].str.partition("+")[2])
    advantage = (rows["baseline_value"] - rows["floor"]) * rows["direction"]
    real = (advantage > 0) & (rows["verdict"] != "at the floor")
    for name, ends in {"kept": "difference", "kept_low": "diff_low", "kept_high": "diff_high"}.items():
        rows[name] = (100 * (1 + rows[ends] * rows["direction"] / advantage)).where(real)
    ends = rows[["kept_low", "kept_high"]].to_numpy(dtype=float)
    return rows.assign(kept_low=np.minimum(*ends.T), kept_high=np.maximum(*ends.T))


def damage_title(damage: str) -> str:
    """'25 % of the counts', 'panel of 1,000 genes', 'all counts'."""
    if damage.startswith("thinned"):
        return f"{damage.removeprefix('thinned')} % of the counts"
    return f"panel of {int(damage.removeprefix('panel')):,} genes" if damage else "all counts"


def ordered(damages: pd.Series) -> list[str]:
    """The damages, mildest first: thinning, then panels, larger before smaller."""
    return sorted(set(damages), key=lambda name: (name.startswith("panel"), -int("".join(filter(str.isdigit, name)) or 0)))


def sentences(run: Run, good: pd.DataFrame) -> list[str]:
    """Per model and damage: what is kept of the advantage over the floor, and how many tests found a loss."""
    lines = []
    for variant, own in good.groupby("variant", sort=True):
        said = [_kept(own[own["damage"] == damage], damage) for damage in ordered(own["damage"])]
        lines.append(
            f"<b>{escape(run.titles.get(variant, variant))}</b> keeps of its advantage over the floor {'; '.join(said)}."
        )
    return lines


def _kept(part: pd.DataFrame, damage: str) -> str:
    kept, where = part["kept"].dropna(), escape(damage_title(damage).replace("panel", "a panel"))
    tested = verdict_counts(part["verdict"].value_counts())
    if kept.empty:
        return f"an unknown share with {where} ({tested})"
    span = (
        f"{kept.median():.0f} %"
        if len(kept) == 1
        else f"{kept.median():.0f} % (median; {kept.min():.0f} to {kept.max():.0f} %)"
    )
    return f"{span} with {where} ({tested})"


def _figure(run: Run, good: pd.DataFrame):
    parts, variants, damages = good.groupby(["dataset", "task"]), sorted(set(good["variant"])), ordered(good["damage"])
    figure, axes = panels(len(parts), (3.4, 3.0))
    for axis, ((dataset, task), part) in zip(axes, parts, strict=True):
        for place, variant in enumerate(variants):
            _line(axis, part[part["variant"] == variant], damages, place, len(variants), run.titles.get(variant, variant))
        floor = part["floor"].dropna()
        if len(floor):
            axis.axhline(floor.iloc[0], color="#777777", linestyle=":", linewidth=1)
        names = [
            "all",
            *(name.replace("thinned", "").replace("panel", "panel\n") + " %" * name.startswith("thinned") for name in damages),
        ]
        axis.set_xticks(range(len(names)), names, fontsize=6.5)
        axis.set_ylabel(metric_title(part["metric"].iloc[0]), fontsize=7.5)
        small_panel(axis, f"{wrapped(run.title(dataset), 34)}\n{task_title(task)}")
    legend_below(figure, axes, 3)
    return figure


def _line(axis, part: pd.DataFrame, damages: list[str], place: int, n: int, title: str) -> None:
    """One model: the undamaged score, then that of each damage; panels are not on the line of thinning."""
    if part.empty:
        return
    colour, marker = style(place)
    shift = 0.12 * (place - (n - 1) / 2)
    by = part.set_index("damage")
    here = [name for name in damages if name in by.index]
    x = np.array([0, *(1 + damages.index(name) for name in here)]) + shift
    y = np.array([part["baseline_value"].iloc[0], *by.loc[here, "value"]])
    axis.vlines(x[1:], by.loc[here, "ci_low"], by.loc[here, "ci_high"], color=colour, linewidth=1)
    line = [True, *(name.startswith("thinned") for name in here)]
    axis.plot(x[line], y[line], color=colour, linewidth=1.2)
    axis.plot(x, y, marker, color=colour, markersize=4, label=title)


def _table(run: Run, rows: pd.DataFrame) -> dict:
    head = ["Data set", "Task", "Model", "Damage", "All counts", "Damaged", "Difference", "Advantage kept", "Result"]
    body = []
    places = {name: place for place, name in enumerate(ordered(rows["damage"]))}
    for row in rows.assign(place=rows["damage"].map(places)).sort_values(["dataset", "task", "variant", "place"]).itertuples():
        names = [
            run.title(row.dataset),
            task_title(row.task),
            run.titles.get(row.variant, row.variant),
            damage_title(row.damage),
        ]
        if row.status == "ok":
            symbol, word = VERDICTS[row.verdict][:2]
            kept = "–" if np.isnan(row.kept) else f"{row.kept:.0f} % [{row.kept_low:.0f}, {row.kept_high:.0f}]"
            values = [number(row.baseline_value, row.metric), with_interval(row.value, row.ci_low, row.ci_high, row.metric),
                      with_interval(row.difference, row.diff_low, row.diff_high, row.metric, sign=True), kept,
                      f"{symbol} {word}"]  # fmt: skip
        else:
            values = ["–", "–", "–", "–", row.reason]
        body.append([escape(str(cell)) for cell in names + values])
    about = (
        "Differences are paired on the same units of the same split, with 95 % intervals. Advantage kept: of the score over "
        "the floor, where all counts have one."
    )
    return section("robustness_table", "Table", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT)
