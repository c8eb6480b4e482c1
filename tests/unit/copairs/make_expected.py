"""Write expected.json: average precisions by copairs 0.5.5 (Kalinin et al. 2025) of small random profiles.

Run it in an environment with `copairs==0.5.5`; the tests of task `map` read what it writes and need no copairs.
"""

import json
from pathlib import Path

import numpy as np
import pandas as pd
from copairs.map import average_precision, multilabel

HERE = Path(__file__).parent
LABELS = {"a": [0, 1, 2], "b": [2, 3, 4, 5], "c": [6, 7, 8], "d": [0, 9, 10, 11], "e": [12, 13, 14]}


def activity(random: np.random.Generator) -> dict:
    """Three perturbations and four profiles of controls in each of three parts; positives and negatives in other parts."""
    meta = [{"who": f"P{p}", "part": part, "control": False} for p in range(3) for part in range(3)]
    meta += [{"who": f"c{part}{i}", "part": part, "control": True} for part in range(3) for i in range(4)]
    profiles = random.normal(size=(len(meta), 4)).round(3)
    frame = pd.DataFrame(meta)
    found = average_precision(frame, profiles, ["who"], ["part"], [], ["part", "control"], progress_bar=False)
    value = found.loc[~frame["control"].to_numpy(), "average_precision"]
    return {"meta": meta, "profiles": profiles.tolist(), "average_precision": value.tolist()}


def consistency(random: np.random.Generator) -> dict:
    """15 genes in five sets, some in two of them; negatives share no set with the query."""
    profiles = random.normal(size=(15, 4)).round(3)
    sets = [[name for name, members in LABELS.items() if gene in members] for gene in range(15)]
    frame = pd.DataFrame({"gene": range(15), "set": sets})
    found = multilabel.average_precision(frame, profiles, ["set"], [], [], ["set"], multilabel_col="set", progress_bar=False)
    value = {name: rows.sort_values("gene")["average_precision"].tolist() for name, rows in found.groupby("set")}
    return {"sets": LABELS, "profiles": profiles.tolist(), "average_precision": value}


if __name__ == "__main__":
    generator = np.random.default_rng(0)
    made = {"activity": activity(generator), "consistency": consistency(generator)}
    (HERE / "expected.json").write_text(json.dumps(made, indent=1) + "\n")
