"""Batch effect: are cells of different batches mixed in the embedding? iLISI over the test1 cells, controls included.
With fewer than seven batches over all cells.

Read it beside separability: a random embedding mixes perfectly.
"""

import numpy as np
import pandas as pd

from plumbline.metrics.lisi import MIN_K, SCIB_NEIGHBOURS, ilisi, ilisi_scib, k_for
from plumbline.metrics.rows import Rows
from plumbline.scoring.records import Metric, Task
from plumbline.scoring.sampling import asked
from plumbline.scoring.scores import Items, Score
from plumbline.scoring.screen import View

NOISE_MIXES = {"noise_scores_best": True, "compares_controls": True}
METRICS = (
    Metric(name="ilisi_raw", title="iLISI (effective number of batches)", lowest=1, highest=np.inf, **NOISE_MIXES),
    Metric(name="ilisi_ratio", title="iLISI / shuffled", highest=np.inf, **NOISE_MIXES),
    Metric(name="ilisi_scaled", title="iLISI, 0..1", **NOISE_MIXES),
    Metric(name="ilisi_scib", title="iLISI (scib-metrics)", **NOISE_MIXES),
)


def not_applicable(facts: dict) -> str:
    """Why the task does not apply to this data set; '' if it does."""
    return "" if facts["has_batches"] and facts["n_batches"] > 1 else "the data set has no batches to mix"


def run(view: View) -> list[Score]:
    """Score the mixing of batches among the B batches of the test1 cells.

    ilisi_raw: mean LISI, 1 (separated) to B. ilisi_ratio: divided by its mean under shuffled batch labels (seeded), about 1
    if mixed. ilisi_scaled: (mean - 1) / (B - 1). ilisi_scib: (median - 1) / (B - 1) as scib-metrics. Items: batches.
    """
    cells = np.flatnonzero(view.split.test1)
    batch, names = pd.factorize(view.screen.batch[cells].astype(object))
    k = k_for(len(cells))
    reason = _why_not(view, len(names), k)
    if reason:
        return TASK.absent(reason)
    random = np.random.default_rng(view.seed)
    labels = np.stack([batch, random.permutation(batch), _shuffled_within(batch, view.screen.treatment[cells], random)])
    asking, some = asked(view, cells, "iLISI")
    around = f", around {some} cells" if some else ""
    # neighbours that are equally far are taken in order, which must not be that of ids: these often begin with the batch
    order = random.permutation(len(cells))
    points, asking_there = Rows(view.embedding, cells[order]), np.argsort(order)[asking]
    lisi, shuffled, within = ilisi(points, labels[:, order], k, view.threads, view.device, asking_there)
    scib = ilisi_scib(points, batch[order], view.threads, view.device, asking_there)
    span = len(names) - 1
    scaled = (-1.0 / span, 1.0 / span)
    affine = {"ilisi_raw": (0.0, 1.0), "ilisi_ratio": (0.0, 1.0 / shuffled.mean()), "ilisi_scaled": scaled}
    notes = {"ilisi_scaled": _attainable((within.mean() - 1) / span)}
    batch, k_scib = batch[asking], min(SCIB_NEIGHBOURS, len(cells))
    scores = [_score(m, lisi, batch, names, *affine[m], f"k = {k}{around}{notes.get(m, '')}") for m in affine]
    return [*scores, _score("ilisi_scib", median_terms(scib), batch, names, *scaled, f"k = {k_scib}{around}")]


def _shuffled_within(batch: np.ndarray, perturbation: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """Batch labels (n,) shuffled among the cells of each perturbation, controls being one."""
    order = np.lexsort((random.random(len(batch)), perturbation))
    shuffled = np.empty_like(batch)
    shuffled[np.lexsort((np.arange(len(batch)), perturbation))] = batch[order]
    return shuffled


def _attainable(highest: float) -> str:
    """What the score would be without any batch effect, where perturbations that lie in few batches keep it far below 1."""
    return "" if highest > 0.8 else f"; attainable maximum {highest:.2f} (batch labels shuffled within perturbations)"


def median_terms(values: np.ndarray) -> np.ndarray:
    """Values (n,) whose mean is the median of ``values``: the median plus each value's influence on it.

    So a median, too, is a ratio of sums over batches, with an interval to match. The density at the median is taken from the
    central tenth of the values.
    """
    median = np.median(values)
    low, high = np.quantile(values, [0.45, 0.55])
    influence = np.sign(values - median) * (high - low) / 0.1 / 2
    return median + influence - influence.mean()


def _why_not(view: View, n_batches: int, k: int) -> str:
    if n_batches < 2:
        return f"the test cells lie in {n_batches} batch{'' if n_batches == 1 else 'es'}: there is nothing to mix"
    if view.embedding.shape[1] == 0:
        return "the model gives no embedding"
    return f"too few test cells for {MIN_K} neighbours" if k < MIN_K else ""


def _score(
    metric: str, values: np.ndarray, batch: np.ndarray, names: np.ndarray, offset: float, scale: float, reason: str
) -> Score:
    n_cells, sums = (np.bincount(batch, weights, minlength=len(names)).astype(float) for weights in (None, values))
    # whether two batches mix is a matter of both: a batch moves the LISI of the others as much as its own (a U-statistic of
    # degree 2: Hoeffding 1948, Ann Math Stat 19:293), so that batches on their own show a quarter of the variance
    again, met = scale * (sums - values.mean() * n_cells) / len(values), n_cells > 0
    unit = names.astype(str)[met]
    influence = dict(zip(unit.tolist(), again[met].tolist(), strict=True))
    items = Items("batch", unit, sums[met], n_cells[met], offset=offset, scale=scale, influence=influence)
    return Score.of(metric, items, n=len(values), reason=reason)


TASK = Task(
    name="batch_effect",
    version="3",  # 3: all batches are scored where there are fewer than seven; 2: all test batches, choice on train cells
    title="Batch mixing",
    question="Whether cells of different batches mix. Read it next to the tasks on biology: noise mixes perfectly.",
    order=60,
    metrics=METRICS,
    main_metric="ilisi_scaled",
    not_applicable=not_applicable,
    run=run,
    scores_controls=True,
    chooses_on_train=True,  # half of two test batches would leave nothing to mix
    uses_split=True,
    whole_if_few=True,
    uses_device=True,
)
