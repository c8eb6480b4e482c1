"""Mean average precision of profiles, as copairs (Kalinin et al. 2025): activity and consistency (protocol, task 8).

`map_activity`: profiles of one perturbation in several batches, against controls. `map_consistency`: perturbations of the
members of one CORUM complex, against the other complexes.
"""

from dataclasses import replace

import numpy as np
import pandas as pd

from plumbline.common.labels import among
from plumbline.common.random import seed_of
from plumbline.genes.combinations import is_combination
from plumbline.genes.relationships import members_among, perturbed_genes
from plumbline.metrics.activity import MIN_CONTROLS, Profiles
from plumbline.metrics.average_precision import Consistency
from plumbline.metrics.divisions import Labels, labels_of, mixed, parting_for
from plumbline.metrics.groups import MIN_RELABELLINGS, group_by
from plumbline.metrics.ranks import ALPHA
from plumbline.metrics.repeats import Effects, effects
from plumbline.scoring.records import Metric, Task, too_narrow
from plumbline.scoring.scores import Items, Score, counted
from plumbline.scoring.screen import View
from plumbline.scoring.stats import bh
from plumbline.tasks import recall

COMPARES = {"compares_controls": True}
METRICS = (
    Metric(
        name="map_activity",
        title="mAP, activity (replicates against controls)",
        repeat="map_activity_ceiling",
        **COMPARES,
    ),
    Metric(name="map_activity_ceiling", title="mAP, activity, replicates within batches (ceiling)", **COMPARES),
    Metric(
        name="map_activity_pct",
        title="percent of perturbations active, q ≤ 0.05",
        unit="%",
        highest=100,
        chance=0.0,
        uncalibrated=too_narrow("77 to 93"),
        **COMPARES,
    ),
    Metric(name="map_consistency", title="mAP, consistency (CORUM complexes)"),
    Metric(
        name="map_consistency_pct",
        title="percent of complexes consistent, q ≤ 0.05",
        unit="%",
        highest=100,
        chance=0.0,
        uncalibrated=too_narrow("64 to 100"),
    ),
)
ACTIVITY = ("map_activity", "map_activity_pct", "map_activity_ceiling")
CONSISTENCY = ("map_consistency", "map_consistency_pct")
MAX_REPEATS = 8  # profiles of one perturbation: of more batches, several make one profile
MIN_SHARE = 0.9  # of the cells that a ceiling has to be made of
MIN_MEMBERS = 3  # perturbed members below which a complex is not scored
MIN_CANDIDATES = 5  # genes without a complex in common, for each member
MIN_COMPLEXES = 3


def not_applicable(facts: dict) -> str:
    """Why the task does not apply to this data set; '' if it does."""
    if facts["n_perturbations"] < 1:
        return "the data set has no perturbation"
    return "" if facts["has_controls"] else "profiles are differences to control cells, and the data set has none"


def run(view: View) -> list[Score]:
    """Mean average precision (0..1) and the share of groups with q <= 0.05 (percent).

    map_activity, _pct: perturbations with profiles in two parts of the data or more (batches, else guides, else cells).
    map_consistency, _pct: CORUM complexes with three perturbed members or more; one profile per gene.
    """
    if view.protocol == "paper":
        return TASK.absent("not part of the paper's protocol")
    return [*_activity(view.compared() if view.compared else view), *_consistency(view)]


def _activity(view: View) -> list[Score]:
    labels = labels_of(view.screen)
    kind, parting = parting_for(labels)
    part = parting(labels, MAX_REPEATS if kind == "batches" else 4, seed_of(view.seed, "repeats"))
    profiles = _profiles(view, labels, part)
    if len(profiles.usable) < 2:
        few = f"{counted(len(profiles.usable), 'part')} of the {kind} have controls for {MIN_CONTROLS} profiles; 2 are needed"
        return [Score.absent(metric, few) for metric in ACTIVITY]
    table = _active(profiles, view)
    missing = len(pd.unique(view.screen.perturbation[~view.screen.is_control])) - len(table)
    left_out = f"{counted(missing, 'perturbation')} without two profiles or {MIN_RELABELLINGS} relabellings not scored"
    note = f"profiles: {kind}; {left_out}" if missing else f"profiles: {kind}"
    if table.empty:
        return [Score.absent(metric, note) for metric in ACTIVITY]
    names, value, p = table["name"].to_numpy(dtype=str), table["value"].to_numpy(), table["p"].to_numpy()
    return [
        _mean("map_activity", profiles, table, f"{note}; chance {table['chance'].mean():.3f}"),
        _significant("map_activity_pct", "perturbation", names, p, value, note),
        _ceiling(view, labels, kind, np.where(among(labels.perturbation, names) | labels.is_control, part, -1)),
    ]


def _profiles(view: View, labels: Labels, part: np.ndarray) -> Profiles:
    return Profiles.of(view.embedding, labels, part, seed_of(view.seed, "control profiles"))


def _mean(metric: str, profiles: Profiles, table: pd.DataFrame, note: str) -> Score:
    names, value = table["name"].to_numpy(dtype=str), table["value"].to_numpy()
    shared = profiles.influence(names) if len(names) else {}
    items = Items("perturbation", names, value, np.ones(len(value)), extra={"value": value}, influence=shared)
    return Score.of(metric, items, reason=note)


def _ceiling(view: View, labels: Labels, kind: str, part: np.ndarray) -> Score:
    """What noise leaves of the activity: as many profiles of as many cells, of the same batches. part: that of the score."""
    metric = "map_activity_ceiling"
    if kind == "cells":
        return Score.absent(metric, "the profiles are already cells of the same batches")
    profiles = _profiles(view, labels, mixed(labels, part, seed_of(view.seed, "ceiling")))
    n_cells = int((~labels.is_control & (part >= 0)).sum())
    if profiles.found.n_cells.sum() < MIN_SHARE * n_cells or len(profiles.usable) < 2:
        return Score.absent(metric, "too few controls per batch: each part of the cells needs controls of all its batches")
    return _mean(metric, profiles, _active(profiles, view, nulls=False), "profiles: cells of the same batches")


def _active(profiles: Profiles, view: View, nulls: bool = True) -> pd.DataFrame:
    """Perturbations with two profiles or more in usable parts: value, and with ``nulls`` p and the chance level."""
    found, activity, scored = profiles.found, profiles.activity(view.n_draws, view.seed), []
    for rows, part in profiles.repeated(np.arange(len(found.code))):
        if not nulls or len(activity.null(part)) >= MIN_RELABELLINGS:
            value = activity.observed(rows, part)
            chance = activity.null(part).mean() if nulls else np.nan
            p = [activity.p_value(one, part) if nulls else np.nan for one in value]
            scored.append(pd.DataFrame({"code": found.code[rows[:, 0]], "value": value, "p": p, "chance": chance}))
    table = pd.concat([pd.DataFrame(columns=["code", "value", "p", "chance"], dtype=float), *scored]).sort_values("code")
    return table.assign(name=found.names[table["code"].to_numpy(dtype=np.int64)])


def _consistency(view: View) -> list[Score]:
    reason = recall.not_applicable(view.screen.facts)
    if reason:
        return [Score.absent(metric, reason) for metric in CONSISTENCY]
    found = _gene_effects(view)
    annotated, sets, related = _complexes_of(found.names)
    if len(sets) < MIN_COMPLEXES:
        few = f"{counted(len(sets), 'CORUM complex')} with {MIN_MEMBERS} perturbed members; at least {MIN_COMPLEXES} are needed"
        return [Score.absent(metric, few) for metric in CONSISTENCY]
    names = found.names[annotated]
    result = Consistency(found.values[annotated], list(sets.values()), related, view.seed)
    members, null = result.observed(), result.null(view.n_draws, seed_of(view.seed, "permuted genes"))
    value = np.array([part.mean() for part in members])
    p = ((null >= value[:, None] - 1e-12).sum(axis=1) + 1) / (null.shape[1] + 1)
    note = f"{len(annotated)} perturbed genes are in a complex, {len(sets)} complexes are scored"
    items = replace(
        _by_gene(names, sets, members), influence=dict(zip(names.tolist(), result.influence().tolist(), strict=True))
    )
    mean = Score.of("map_consistency", items, reason=f"{note}; chance {null.mean():.3f}")
    return [mean, _significant("map_consistency_pct", "complex", np.array(list(sets)), p, value, note)]


def _by_gene(names: np.ndarray, sets: dict[str, np.ndarray], found: list[np.ndarray]) -> Items:
    """The mean over complexes of the mean over their members, as sums over genes: complexes share genes."""
    gene, size = np.concatenate(list(sets.values())), np.concatenate([np.full(len(part), len(part)) for part in found])
    top = np.bincount(gene, np.concatenate(found) / size, minlength=len(names))
    bottom = np.bincount(gene, 1.0 / size, minlength=len(names))
    return Items("gene", names[bottom > 0], top[bottom > 0], bottom[bottom > 0])


def _gene_effects(view: View) -> Effects:
    """The effect of each perturbed gene, named as the relationships name it; combinations of genes are left out."""
    labels, screen = labels_of(view.screen), view.screen
    found = group_by(screen.perturbation)
    names, code = found.names, found.codes
    genes = perturbed_genes(names, screen.genes, screen.facts.get("organism") or "human")
    single = np.array([not is_combination(name) for name in genes], dtype=bool)
    part = np.where(single[code] | screen.is_control, 0, -1)
    return effects(view.embedding, replace(labels, perturbation=genes[code]), part)


def _complexes_of(names: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray], np.ndarray]:
    """Which ``names`` are in any complex; the complexes to score, as places among these; and who shares a complex (mask).

    A complex needs enough members and candidates; of several with the same perturbed members the first is scored.
    """
    known = members_among(names)
    annotated = np.unique(np.concatenate([*known.values(), np.zeros(0, dtype=np.int64)]))
    related = np.eye(len(annotated), dtype=bool)
    known = {name: np.searchsorted(annotated, members) for name, members in known.items()}
    for members in known.values():
        related[np.ix_(members, members)] = True
    free, first = (~related).sum(axis=1), {}
    for name, members in known.items():
        if len(members) >= MIN_MEMBERS and free[members].min() >= MIN_CANDIDATES:
            first.setdefault(tuple(members.tolist()), name)
    return annotated, {name: np.array(members) for members, name in first.items()}, related


def _significant(metric: str, kind: str, names: np.ndarray, p: np.ndarray, value: np.ndarray, note: str) -> Score:
    """Percentage of the groups with q <= 0.05."""
    extra = {"p": p, "q": bh(p), "value": value}
    hit = (extra["q"] <= ALPHA).astype(float)
    return Score.of(metric, Items(kind, names, hit, np.ones(len(p)), scale=100.0, extra=extra), reason=note)


TASK = Task(
    name="map",
    version="3",  # 3: intervals know what units share
    title="Average precision of profiles",
    question="Whether profiles of one perturbation are nearer to each other than to controls, and those of one complex than to "
    "other genes.",
    order=25,
    metrics=METRICS,
    main_metric="map_activity",
    not_applicable=not_applicable,
    run=run,
    needs_relationships=True,
)
