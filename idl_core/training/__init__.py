"""Training of any torch module: a loop one can read, exact metrics, checkpoints that are whole."""

from idl_core.training.callbacks import Callback, Callbacks, Metrics, Plan, Progress
from idl_core.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    CheckpointFolder,
    load_weights,
    read_checkpoint,
    write_checkpoint,
)
from idl_core.training.components import TrainingComponents
from idl_core.training.distributed import Group, Team
from idl_core.training.evaluation import Batches, Precision, evaluate, predict
from idl_core.training.graphs import CannotCapture
from idl_core.training.loop import FitResult, Settings, epoch_order, fit
from idl_core.training.schedule import Schedule, constant, cosine, step_decay
from idl_core.training.state import NonFiniteLoss
from idl_core.training.tasks import TASKS, Classification, Language, Regression, Task

__all__ = [
    "TASKS",
    "Batches",
    "Callback",
    "Callbacks",
    "CannotCapture",
    "Checkpoint",
    "CheckpointError",
    "CheckpointFolder",
    "Classification",
    "FitResult",
    "Group",
    "Language",
    "Metrics",
    "NonFiniteLoss",
    "Plan",
    "Precision",
    "Progress",
    "Regression",
    "Schedule",
    "Settings",
    "Task",
    "Team",
    "TrainingComponents",
    "constant",
    "cosine",
    "epoch_order",
    "evaluate",
    "fit",
    "load_weights",
    "predict",
    "read_checkpoint",
    "step_decay",
    "write_checkpoint",
]
