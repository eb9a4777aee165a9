"""Progress and newest metrics for summary.json, in case the run fails or is stopped."""

from __future__ import annotations

from idl_cli.record.summary import RunSummary
from idl_core.training.callbacks import Callback, Metrics, Plan, Progress


class SummaryLogger(Callback):
    """Updates a summary while a training runs."""

    def __init__(self, summary: RunSummary) -> None:
        self._summary = summary

    def on_start(self, plan: Plan) -> None:
        self._summary.epochs = plan.first_step // plan.steps_per_epoch
        self._summary.steps = plan.first_step

    def on_tick(self, progress: Progress) -> None:
        self._summary.epochs, self._summary.steps = progress.epoch, progress.step

    def on_log(self, progress: Progress, metrics: Metrics) -> None:
        self.on_tick(progress)
        self._summary.train = metrics

    def on_evaluation(self, progress: Progress, split: str, metrics: Metrics, best: bool) -> None:
        if split == "val" and best:
            self._summary.val = metrics
