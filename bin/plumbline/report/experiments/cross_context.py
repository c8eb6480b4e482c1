"""Cross-context: do embeddings of two data sets agree on what the same perturbations do?"""

from pathlib import Path

import numpy as np
import pandas as pd

from plumbline.report.figures import image, panels, wrapped
from plumbline.report.run import Run
from plumbline.report.words import escape, listed, number, section, table, with_interval

NAME = "cross_context"
PARENT = {
    "parent_id": "plumbline_cross_context",
    "parent_name": "Experiment: cross-context",
    "parent_description": "The same perturbations in two data sets: do embeddings agree on which of them act alike?",
}
MEASURES = {"rsa": "rank correlation of similarities", "pds": "PDS", "top1": "top-1 accuracy", "mrr": "mean reciprocal rank"}
FDR = 0.05


def sections(run: Run, folder: Path) -> list[dict]:
    """A matrix of agreement for each pair of data sets, and a table of all measures."""
    path = folder / f"{NAME}.parquet"
    if not path.exists():
        return []
    rows = pd.read_parquet(path)
    rows = rows.assign(**{f"label_{side}": [run.titles.get(name, name) for name in rows[f"variant_{side}"]] for side in "ab"})
    good = rows[rows["status"] == "ok"]
    parts = [_matrix_section(run, good)] if len(good) else []
    return [*parts, _table(run, good, rows[rows["status"] != "ok"])] if len(rows) else []


def _matrix_section(run: Run, good: pd.DataFrame) -> dict:
    about = (
        "Rows: embeddings of one data set; columns: of the other. Spearman correlation of their matrices of cosines between "
        f"effects, which needs no common space; * more than by chance (permutations, q ≤ {FDR:g}). Above:"
        " perturbations in common."
    )
    said = sentence(run, good)
    figure = image(_figure(run, good[good["measure"] == "rsa"]), said)
    return section("cross_context_matrix", "Matrix", about, f"<p>{escape(said)}</p>{figure}", **PARENT)


def sentence(run: Run, good: pd.DataFrame) -> str:
    """How many pairs of embeddings agree, the best of them, and what retrieval says where there is a common space."""
    agree = good[good["measure"] == "rsa"]
    found = agree[(agree["q"] <= FDR) & (agree["value"] > 0)]
    text = f"{len(found)} of {len(agree)} pairs of embeddings of different data sets agree on which perturbations act alike"
    if len(found):
        best = found.loc[found["value"].idxmax()]
        text += (f"; most, {_named(run, best, 'a')} and {_named(run, best, 'b')}: "
                 f"{with_interval(best['value'], best['ci_low'], best['ci_high'])}{_attainable(best)}")  # fmt: skip
    again = good[(good["measure"] == "pds") & (good["q"] <= FDR) & (good["value"] > good["chance"])]
    n_spaces = int((good["measure"] == "pds").sum())
    if not n_spaces:
        return f"{text}. No embedding puts two data sets into one space."
    names = listed(sorted(set(again["label_a"])))
    return f"{text}. Perturbations are found again in the other data set in {len(again)} of {n_spaces} common spaces" + (
        f" ({names})." if names else "."
    )


def _named(run: Run, row: pd.Series, side: str) -> str:
    return f"{row[f'label_{side}']} on {run.title(row[f'dataset_{side}'])}"


def _attainable(row: pd.Series) -> str:
    return f" (noise leaves at most about {number(row['attainable'])})" if np.isfinite(row["attainable"]) else ""


def _figure(run: Run, rows: pd.DataFrame):
    pairs = list(rows.groupby(["dataset_a", "dataset_b"], sort=True))
    most = max(part["label_b"].nunique() for _, part in pairs), max(part["label_a"].nunique() for _, part in pairs)
    figure, axes = panels(len(pairs), (2.4 + 0.55 * most[0], 1.5 + 0.42 * most[1]), columns=2)
    for axis, ((one, other), part) in zip(axes, pairs, strict=True):
        _matrix(axis, part)
        axis.set_title(wrapped(f"{int(part['n'].iloc[0])} perturbations", 40), fontsize=8, loc="left", fontweight="bold")
        axis.set_ylabel(wrapped(run.title(one), 34), fontsize=7)
        axis.set_xlabel(wrapped(run.title(other), 34), fontsize=7)
    return figure


def _matrix(axis, part: pd.DataFrame) -> None:
    values, q = (part.pivot_table(index="label_a", columns="label_b", values=name, dropna=False) for name in ("value", "q"))
    axis.imshow(values.to_numpy(), cmap="RdBu_r", vmin=-1, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(values.to_numpy()):
        star = "*" if q.to_numpy()[i, j] <= FDR else ""
        axis.text(
            j, i, f"{number(value)}{star}", ha="center", va="center", fontsize=7, color="white" if value > 0.6 else "black"
        )
    axis.set_xticks(range(values.shape[1]), [name[:22] for name in values.columns], fontsize=6.5, rotation=30, ha="right")
    axis.set_yticks(range(values.shape[0]), [name[:22] for name in values.index], fontsize=6.5)


def _table(run: Run, good: pd.DataFrame, rest: pd.DataFrame) -> dict:
    head = ["Data set", "Model", "Other data set", "Model", "Measure", "Value", "Chance", "Attainable", "p", "q", "n"]
    body = []
    for row in pd.concat([good, rest]).to_dict("records"):
        names = [
            run.title(row["dataset_a"]),
            row["label_a"],
            run.title(row["dataset_b"]),
            row["label_b"],
            MEASURES[row["measure"]],
        ]
        if row["status"] == "ok":
            tests = number(row["chance"]), number(row["attainable"]), f"{row['p']:.2g}", f"{row['q']:.2g}"
            values = [with_interval(row["value"], row["ci_low"], row["ci_high"]), *tests]
        else:
            values = [row["reason"], "–", "–", "–", "–"]
        body.append([escape(str(cell)) for cell in (*names, *values, int(row["n"]))])
    about = (
        "95 % intervals over perturbations, each with all its pairs. p: permutations of the perturbations, rows and columns "
        "together. Attainable: what noise leaves of the rank correlation (root of the product of both reliabilities)."
    )
    return section("cross_context_table", "Table", about, f'<div class="pl-scroll">{table(head, body)}</div>', **PARENT)
