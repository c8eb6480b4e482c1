"""Evaluation during training. A mistake in it becomes a warning: a training run never ends because of it."""

import logging
from collections.abc import Callable
from importlib import import_module
from typing import Any

from plumbline.benchmark.benchmark import Benchmark

logger = logging.getLogger("plumbline")


class Evaluator:
    """Evaluate the embedding of a model while it is trained, in a loop of one's own.

    Nothing that goes wrong during an evaluation is raised: it is logged as a warning (logger 'plumbline'), and the call
    returns an empty dictionary.

    Parameters
    ----------
    bench
        The benchmark. Its baseline is embedded and scored here, before training.
    encode
        Function of the AnnData that returns the embedding: an array (n_cells, d), a DataFrame by cell id or a key of obsm.
    every_n_steps
        Steps between two evaluations.
    max_cells
        Evaluate on at most so many cells, drawn by cell id; None: on all.
    log
        Called with each summary and the step, such as ``lambda summary, step: wandb.log(summary, step=step)``.

    Attributes
    ----------
    history
        All summaries so far, each with its ``step``.
    """

    def __init__(
        self,
        bench: Benchmark,
        encode: Callable[..., Any],
        every_n_steps: int = 1000,
        max_cells: int | None = None,
        log: Callable[[dict, int], Any] | None = None,
    ) -> None:
        self.bench = (bench.sample(max_cells) if max_cells else bench).prepare()
        self.encode, self.every_n_steps, self.log = encode, max(1, int(every_n_steps)), log
        self.history: list[dict] = []

    def __call__(self, step: int, *arguments: Any) -> dict:
        """Evaluate if ``step`` is a multiple of ``every_n_steps``.

        Parameters
        ----------
        step
            The number of the training step.
        *arguments
            Passed on to ``encode`` before the AnnData, such as the model.

        Returns
        -------
        dict
            ``Result.summary()``; empty between evaluations, and where one failed.
        """
        if step <= 0 or step % self.every_n_steps:
            return {}
        return self.evaluate(step, *arguments)

    def evaluate(self, step: int, *arguments: Any) -> dict:
        """Evaluate now, at whichever step.

        Parameters
        ----------
        step
            The number of the training step.
        *arguments
            Passed on to ``encode`` before the AnnData.

        Returns
        -------
        dict
            ``Result.summary()``; empty where the evaluation failed.
        """
        try:
            result = self.bench.evaluate(self.encode(*arguments, self.bench.screen.adata), name=f"step_{step}")
            summary = result.summary()
            self.history.append({"step": step, **summary})
            if self.log is not None:
                self.log(summary, step)
            return summary
        except Exception as error:
            logger.warning("plumbline: no evaluation at step %s (%s: %s)", step, type(error).__name__, error)
            return {}


def Lightning(bench: Benchmark, encode: Callable[..., Any], every_n_steps: int = 2000, max_cells: int | None = 20_000) -> Any:
    """A callback for a Lightning ``Trainer`` that logs the summary of an evaluation every so many steps.

    A function with the name of a class: the class is made where Lightning is installed.

    Parameters
    ----------
    bench
        The benchmark. Its baseline is embedded and scored here, before training.
    encode
        Function of the LightningModule and the AnnData that returns the embedding. It is called in evaluation mode and
        without gradients, on the process of rank 0 alone.
    every_n_steps
        Steps between two evaluations.
    max_cells
        Evaluate on at most so many cells, drawn by cell id; None: on all.

    Returns
    -------
    lightning.pytorch.Callback
        To be given to ``Trainer(callbacks=[...])``; ``evaluator.history`` has all summaries.
    """
    return _lightning_class()(Evaluator(bench, encode, every_n_steps, max_cells))


def _lightning_class() -> type:
    """The callback's class. Raises ImportError with the next command where Lightning is not installed."""
    base = _callback_base()

    class Plumbline(base):  # type: ignore[valid-type, misc]
        """Evaluates at the end of training batches; see ``plumbline.callbacks.Lightning``."""

        def __init__(self, evaluator: Evaluator) -> None:
            super().__init__()
            self.evaluator, self.last_step = evaluator, 0

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            step = trainer.global_step
            # with accumulated gradients several batches are one step
            if not trainer.is_global_zero or step == self.last_step or step % self.evaluator.every_n_steps:
                return
            self.last_step = step
            summary = _in_evaluation_mode(self.evaluator, step, pl_module)
            numbers = {f"plumbline/{key}": value for key, value in summary.items() if isinstance(value, float)}
            try:
                pl_module.log_dict(numbers, rank_zero_only=True)
            except Exception as error:
                logger.warning("plumbline: the scores of step %s were not logged (%s)", step, error)

    return Plumbline


def _callback_base() -> type:
    for name in ("lightning.pytorch", "pytorch_lightning"):  # its new name, and its old one
        try:
            return import_module(name).Callback
        except ImportError:
            continue
    raise ImportError("Lightning is not installed: pip install 'plumbline[lightning]'.")


def _in_evaluation_mode(evaluator: Evaluator, step: int, module: Any) -> dict:
    import torch

    was_training = module.training
    module.eval()
    try:
        with torch.no_grad():
            return evaluator.evaluate(step, module)
    finally:
        module.train(was_training)
