"""Evaluation during training. A mistake in it becomes a warning: a training run never ends because of it."""

import logging
from collections.abc import Callable
from functools import cached_property
from importlib import import_module
from typing import Any

from plumbline.benchmark.benchmark import Benchmark
from plumbline.benchmark.untouched import evaluation_mode, is_first_process, is_started_first, random_numbers_kept

logger = logging.getLogger("plumbline")


class Evaluator:
    """Evaluate the embedding of a model while it is trained, in a loop of one's own.

    Nothing that goes wrong during an evaluation is raised: it is logged as a warning (logger 'plumbline'), and the call
    returns an empty dictionary. The training goes on as if there had been none: random number generators (Python, numpy,
    torch) and the mode of every part of the model are as before. In a distributed training rank 0 alone evaluates.

    Parameters
    ----------
    bench
        The benchmark. Its baseline is embedded and scored here, before training.
    encode
        Function of the AnnData that returns the embedding: an array (n_cells, d), a DataFrame by cell id or a key of obsm.
        It is called without gradients, and with every torch module that is passed to it in evaluation mode.
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
        self._whole, self._max_cells = bench, max_cells
        self.encode, self.every_n_steps, self.log = encode, max(1, int(every_n_steps)), log
        self.history: list[dict] = []
        if is_started_first():
            _ = self.bench

    @cached_property
    def bench(self) -> Benchmark:
        """The benchmark that is evaluated, prepared: the one given, or a sample of it."""
        return (self._whole if self._max_cells is None else self._whole.sample(self._max_cells)).prepare()

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
        if not is_first_process():
            return {}
        try:
            with random_numbers_kept():
                with evaluation_mode(*arguments):
                    z = self.encode(*arguments, self.bench.screen.adata)
                summary = self.bench.evaluate(z, name=f"step_{step}").summary()
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
        without gradients, on the process of rank 0 alone; the others wait for it at their next exchange of gradients.
    every_n_steps
        Steps (``trainer.global_step``) between two evaluations.
    max_cells
        Evaluate on at most so many cells, drawn by cell id; None: on all.

    Returns
    -------
    lightning.pytorch.Callback
        To be given to ``Trainer(callbacks=[...])``; ``evaluator.history`` has all summaries. Every logger of the trainer
        gets the numbers of each evaluation, whatever ``log_every_n_steps``; ``trainer.callback_metrics`` has the latest.
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

        def on_train_start(self, trainer: Any, _: Any) -> None:
            self.last_step = trainer.global_step  # not 0 where a checkpoint is resumed

        def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
            step, every = trainer.global_step, self.evaluator.every_n_steps
            # with accumulated gradients several batches are one step, with several optimizers one batch is several
            due = step // every > self.last_step // every
            self.last_step = step
            if due and trainer.is_global_zero:
                _log(trainer, pl_module, self.evaluator.evaluate(step, pl_module), step)

    return Plumbline


def _log(trainer: Any, module: Any, summary: dict, step: int) -> None:
    """Hand the numbers to the loggers now: what a module logs reaches them at every log_every_n_steps-th batch alone."""
    numbers = {f"plumbline/{key}": value for key, value in summary.items() if isinstance(value, float)}
    try:
        module.log_dict(numbers, logger=False, rank_zero_only=True)
        for one in trainer.loggers if numbers else ():
            one.log_metrics(numbers, step)
    except Exception as error:
        logger.warning("plumbline: the scores of step %s were not logged (%s)", step, error)


def _callback_base() -> type:
    for name in ("lightning.pytorch", "pytorch_lightning"):  # its new name, and its old one
        try:
            return import_module(name).Callback
        except ImportError:
            continue
    raise ImportError("Lightning is not installed: pip install 'plumbline[lightning]'.")
