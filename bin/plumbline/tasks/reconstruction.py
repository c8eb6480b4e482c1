"""Reconstruction and structural integrity (protocol, task 6): train -> test2.

A decoder learns expression from the embedding on the train cells, and predicts the cells of held-out perturbations in
held-out batches. Two levels: is the mean effect of a perturbation right (effect_*: that alone is about perturbations), and is
each cell (structural integrity and all others: mostly the state of the cell, and the noise of its counts)?
Predictors (no embedding: ``view.predictor``) are scored by the same sums.
"""

import hashlib
from collections.abc import Callable

import numpy as np
import scipy.sparse as sp

from plumbline.counts.expression import ShuffledExpression, read_expression, weighted_sum
from plumbline.metrics.count_halves import missed_by_the_best
from plumbline.metrics.decoder import Decoder, plan, train_decoder
from plumbline.metrics.divisions import labels_of
from plumbline.metrics.effect_agreement import EffectAgreement
from plumbline.metrics.effects import ControlMean, SplitHalf, mean_effect_weights
from plumbline.metrics.integrity import Reconstruction
from plumbline.scoring.records import Metric, Task, too_narrow
from plumbline.scoring.scores import Score, counted
from plumbline.scoring.screen import View

METRICS = (
    Metric(name="effect_pearson", title="Pearson of mean effects", lowest=-1, chance=0.0),
    Metric(
        name="effect_integrity",
        title="structural integrity of mean effects",
        lowest=-np.inf,
        chance=0.0,
        uncalibrated=too_narrow("85 to 92"),
    ),
    Metric(name="structural_integrity", title="structural integrity of cells", lowest=-np.inf, chance=0.5),
    Metric(name="si_effect", title="structural integrity of cells, 0 = no effect", lowest=-np.inf, chance=0.0),
    Metric(name="spearman", title="Spearman per gene", lowest=-1, chance=0.0, uncalibrated=too_narrow("66 to 90")),
    Metric(name="pearson", title="Pearson per gene", lowest=-1, chance=0.0, uncalibrated=too_narrow("63 to 87")),
    Metric(name="mse", title="mean squared error", higher_is_better=False, highest=np.inf),
    Metric(name="mae", title="mean absolute error", higher_is_better=False, highest=np.inf),
    Metric(name="r2", title="R²", lowest=-np.inf, chance=0.0),
)
EFFECTS, INTEGRITY = ("effect_pearson", "effect_integrity"), ("structural_integrity", "si_effect")
PREDICTORS = ("no_effect", "mean_effect", "split_half")
_ELEMENTS = 2**25  # cells x genes predicted at once: 128 MB for the truth and as much for the prediction
_CACHE_BYTES = 2**30
_decoders: dict[str, Decoder] = {}

Predict = Callable[[slice, np.ndarray], np.ndarray]


def not_applicable(facts: dict) -> str:
    """Why the task does not apply to this data set; '' if it does."""
    if not facts["has_controls"]:
        return "effects are measured from control cells, and the data set has none"
    if facts["n_perturbations"] < 2:
        return "held-out perturbations are predicted, and the data set has one perturbation"
    return ""


def run(view: View) -> list[Score]:
    """Mean effects of perturbations, structural integrity of cells, correlations over cells and errors, on all of test2.

    effect_pearson, effect_integrity (`corrected`): effect predicted from one half of a perturbation's cells, against that
    observed in the other. Of predictor split_half `corrected` reports the ceiling of both levels.
    """
    reason = _cannot(view)
    if reason:
        return TASK.absent(reason)
    rows = np.flatnonzero(view.split.test2)
    rows = rows[np.lexsort((view.screen.cell_id[rows], view.screen.batch[rows]))]
    truth = read_expression(view.counts, view.rows[rows], view.screen.facts["x_kind"]).tocsc()
    predict, note = _predictor(view, rows) if view.predictor else _decode(view, rows, truth.shape[1])
    sums = Reconstruction(view.screen.batch[rows], view.screen.is_control[rows])
    effects = None if view.protocol == "paper" else EffectAgreement(labels_of(view.screen.take(rows)), view.seed)
    step = max(1, _ELEMENTS // len(rows))
    for start in range(0, truth.shape[1], step):
        genes = slice(start, min(start + step, truth.shape[1]))
        chunk = _dense(truth, genes)
        prediction = predict(genes, chunk)
        sums.add(chunk, prediction)
        if effects:
            effects.add(chunk, prediction)
    if effects and view.predictor == "split_half":
        return _ceilings(view, rows, sums, effects)
    return [*_effects(effects, note), *_scores(view, sums, note)]


def _cannot(view: View) -> str:
    test, control = view.split.test2, view.screen.is_control
    if view.predictor and view.predictor not in PREDICTORS:
        return f"unknown predictor {view.predictor}"
    if not (test & ~control).any():
        return "no perturbed cell is in test2"
    if not (test & control).any():
        return "no control cell is in test2"
    return "" if (view.split.train & ~control).any() else "no perturbed cell is in train"


def _dense(truth: sp.csc_matrix, genes: slice) -> np.ndarray:
    """Some genes as a dense C-ordered (genes, n) matrix."""
    return np.ascontiguousarray(truth[:, genes].T.toarray())


def _predictor(view: View, rows: np.ndarray) -> tuple[Predict, str]:
    """A prediction from the true controls of each batch."""
    screen = view.screen.take(rows)
    base = ControlMean(screen.batch, screen.is_control)
    if view.predictor == "no_effect" or (view.predictor == "split_half" and view.protocol != "paper"):
        return lambda genes, truth: base.predict(truth), ""
    if view.predictor == "split_half":
        twin = SplitHalf(screen.cell_id, screen.perturbation, screen.is_control, view.seed)

        def from_twin(genes: slice, truth: np.ndarray) -> np.ndarray:
            means = base.predict(truth)
            return means + twin.effect(truth - means)

        return from_twin, ""
    train = np.flatnonzero(view.split.train)
    cells = view.screen.take(train)
    weights = mean_effect_weights(cells.perturbation, cells.batch, cells.is_control)
    effect = weighted_sum(view.counts, view.rows[train], weights, view.screen.facts["x_kind"]).astype(np.float32)
    moved = (~screen.is_control).astype(np.float32)
    note = "" if weights.any() else "no train batch has both controls and perturbed cells: the mean effect is 0"
    return lambda genes, truth: base.predict(truth) + effect[genes, None] * moved, note


def _decode(view: View, rows: np.ndarray, n_genes: int) -> tuple[Predict, str]:
    train = np.flatnonzero(view.split.train)
    how = plan(view.protocol, view.embedding.shape[1], n_genes, len(train), view.device, view.decoder_budget)
    if how.n_cells < len(train):
        train = np.sort(np.random.default_rng(view.seed).choice(train, how.n_cells, replace=False))
    inputs = np.ascontiguousarray(view.embedding[train], dtype=np.float32)
    key = hashlib.sha256(inputs)
    key.update(
        repr((str(view.counts), how, view.seed, view.device)).encode() + np.ascontiguousarray(view.rows[train]).tobytes()
    )
    decoder = _decoders.get(key.hexdigest())
    if decoder is None:
        cells = ShuffledExpression(view.counts, view.rows[train], view.screen.facts["x_kind"])
        decoder = train_decoder(inputs, cells, n_genes, how, view.seed, view.device, view.threads)
        _remember(key.hexdigest(), decoder)
    tested = np.ascontiguousarray(view.embedding[rows], dtype=np.float32)
    return lambda genes, truth: decoder.predict(tested, genes), decoder.note


def _remember(key: str, decoder: Decoder) -> None:
    """Keep a decoder for the other views of the same train cells (validation and report), the oldest going first."""
    _decoders[key] = decoder
    while len(_decoders) > 1 and sum(kept.n_bytes for kept in _decoders.values()) > _CACHE_BYTES:
        del _decoders[next(iter(_decoders))]


def _effects(effects: EffectAgreement | None, note: str) -> list[Score]:
    """The level of perturbations."""
    if effects is None:
        return [Score.absent(metric, "not part of the paper's protocol") for metric in EFFECTS]
    reason = "; ".join(filter(None, (_left_out(effects), note)))
    found = zip(EFFECTS, (effects.pearson(), effects.integrity()), strict=True)
    return [Score.of(metric, items, reason=reason) for metric, items in found]


def _left_out(effects: EffectAgreement) -> str:
    few = len(effects.names) - int(effects.met.any(axis=0).sum())
    return f"{counted(few, 'perturbation')} without cells and controls in both halves not scored" if few else ""


def _ceilings(view: View, rows: np.ndarray, sums: Reconstruction, effects: EffectAgreement) -> list[Score]:
    """What the noise of the data leaves of a score, at each level; other metrics have no ceiling."""
    halves = f"effects in two halves of the cells correlate by {effects.halves_agree():.2f}: what the exact effect reaches"
    known = f"{halves} against one half" if effects.met.any() else ""
    note = "; ".join(filter(None, (known, _left_out(effects))))
    found = dict(zip(EFFECTS, (effects.pearson(ceiling=True), effects.integrity(ceiling=True)), strict=True))
    scores = [Score.of(metric, items, reason=note) for metric, items in found.items()]
    scores += _ceilings_of_cells(view, rows, sums)
    known = {score.metric for score in scores}
    return scores + [Score.absent(m.name, "split halves give a ceiling of effects and of structural integrity alone")
                     for m in METRICS if m.name not in known]  # fmt: skip


def _ceilings_of_cells(view: View, rows: np.ndarray, sums: Reconstruction) -> list[Score]:
    if view.screen.facts["x_kind"] != "counts":
        return [Score.absent(metric, "counts are split into halves, and the values are not counts") for metric in INTEGRITY]
    missed = missed_by_the_best(view.counts, view.rows[rows], view.screen.cell_id[rows], sums, view.seed)
    note = "halves of each cell's counts: what a prediction without the noise of the counts reaches"
    return [Score.of(metric, sums.integrity(metric == "si_effect", missed), reason=note) for metric in INTEGRITY]


def _scores(view: View, sums: Reconstruction, note: str) -> list[Score]:
    genes, as_zero = view.screen.genes["gene_id"].to_numpy(dtype=str), view.protocol == "paper"
    pearson, spearman = sums.correlation("pearson", genes), sums.correlation("spearman", genes, constant_as_zero=as_zero)
    skipped, constant = int((~sums.in_integrity).sum()), len(genes) - len(pearson.unit)
    batches = f"{skipped} of {len(sums.names)} batches have no controls and are left out" if skipped else ""
    flat = f"{constant} genes with one value in all test cells " if constant else ""
    found = {
        "structural_integrity": (sums.integrity(), batches),
        "si_effect": (sums.integrity(effect=True), batches),
        "spearman": (spearman, flat and flat + ("count as 0" if as_zero else "are left out")),
        "pearson": (pearson, flat and flat + "are left out"),
        "mse": (sums.errors(), ""),
        "mae": (sums.errors(absolute=True), ""),
        "r2": (sums.r2(), ""),
    }
    return [Score.of(metric, items, reason="; ".join(filter(None, (why, note)))) for metric, (items, why) in found.items()]


TASK = Task(
    name="reconstruction",
    # 2: mean effects of perturbations, on halves of their cells, are the main metric; ceilings of both levels;
    # 3: in `paper` the decoder's rates and decay are those of the paper's configuration
    version="3",
    title="Rebuilding effects",
    question="Whether the effect of an unseen perturbation on expression can be decoded from the embedding of its cells.",
    order=30,
    metrics=METRICS,
    main_metric="effect_pearson",
    paper_metric="structural_integrity",
    not_applicable=not_applicable,
    run=run,
    needs_counts=True,
    uses_split=True,
    uses_device=True,
    scores_predictors=True,
)
