"""What a task is: one record, read by the driver, Nextflow, the calibration, the report and the docs.

A module of ``plumbline.tasks`` holds one ``TASK``. Nextflow reads its flags from the source (``needs_counts=True`` on a line of
its own) and its name from the file; everything else is read here.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

from plumbline.scoring.scores import Score
from plumbline.scoring.screen import View


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number that a task reports for an embedding.

    name: snake_case, the column ``metric`` of every table. title: as readers see it. unit: '' or '%'.
    lowest, highest: the range of values; intervals end there. chance: the value of an embedding without information where
    theory gives one, else NaN (the floor models show it). noise_scores_best: an embedding without information has the best
    score: there is no floor. compares_controls: the controls' own embeddings enter it, so that `corrected` fits the
    post-processing on other controls; a task of which only some metrics do takes their cells from ``view.compared()``.
    repeat: the metric that says what a repeat of the experiment scores, of the same task and model; '' where none does.
    uncalibrated: why no verdict and no rank rests on this metric, where its intervals do not hold their level
    (benchmarks/trust.md); '' where they do.
    """

    name: str
    title: str
    unit: str = ""
    higher_is_better: bool = True
    lowest: float = 0.0
    highest: float = 1.0
    chance: float = math.nan
    noise_scores_best: bool = False
    compares_controls: bool = False
    uncalibrated: str = ""
    repeat: str = ""

    @property
    def direction(self) -> int:
        """+1 where higher is better, else -1."""
        return 1 if self.higher_is_better else -1

    @property
    def bounds(self) -> tuple[float, float]:
        """(lowest, highest)."""
        return self.lowest, self.highest


@dataclass(frozen=True, kw_only=True)
class Task:
    """A question put to every embedding.

    name: that of the module. version: a change of meaning is a new version. title, question: as the report prints them.
    order: place in the report, smallest first. main_metric: chooses the post-processing and ranks the models;
    ``choose_main(facts)`` where that depends on the data set. paper_metric: the one that chooses the post-processing under
    `paper`, where the paper has another.
    not_applicable(facts): why the task does not apply to a data set; '' if it does.
    run(view): one Score per metric, always.
    needs_counts: it streams counts.h5ad. needs_relationships: it reads known relationships of genes, which are installed
    apart. uses_split: it scores test cells rather than all cells. scores_controls: controls are among the scored cells,
    which are the same under every post-processing. chooses_on_train: the post-processing is chosen on train cells, and all
    test cells are reported on. scores_predictors: it also scores predictors, which give expression and no embedding.
    whole_if_few: of few batches `corrected` scores all (scoring/parts.py), each one left out in turn where something is
    trained, and chooses no post-processing. uses_device: a GPU speeds it up. describes: neither direction of its metrics is
    better: no post-processing is chosen by it, all cells are described once, and there is no verdict, no scale and no rank.
    centers_perturbed: `corrected` also reports on it under post-processing center_perturbed, which is never chosen.
    """

    name: str
    version: str
    title: str
    question: str
    order: int
    metrics: tuple[Metric, ...]
    main_metric: str
    not_applicable: Callable[[dict], str]
    run: Callable[[View], list[Score]]
    choose_main: Callable[[dict], str] | None = None
    paper_metric: str = ""
    needs_counts: bool = False
    needs_relationships: bool = False
    uses_split: bool = False
    scores_controls: bool = False
    chooses_on_train: bool = False
    scores_predictors: bool = False
    whole_if_few: bool = False
    uses_device: bool = False
    describes: bool = False
    centers_perturbed: bool = False

    def metric(self, name: str) -> Metric:
        """One metric of the task. Raises KeyError for an unknown name."""
        return {metric.name: metric for metric in self.metrics}[name]

    def main(self, facts: dict, protocol: str = "corrected") -> str:
        """The metric that ranks post-processings and models on the data set of these facts."""
        if protocol == "paper" and self.paper_metric:
            return self.paper_metric
        return self.choose_main(facts) if self.choose_main and facts else self.main_metric

    def absent(self, reason: str) -> list[Score]:
        """Every metric as not applicable, with the reason."""
        return [Score.absent(metric.name, reason) for metric in self.metrics]


def too_narrow(held: str) -> str:
    """Why a metric is ``uncalibrated``: in how many percent of repeats its 95 % intervals hold the mean, such as '90 to 93'."""
    return f"95 % intervals held the mean in {held} % of repeats of simulated screens (benchmarks/trust.md)"
