"""Training steps and evaluation as CUDA graphs: what is launched once and replayed.

`cuda` has the graphs themselves and says whether a training can have them, `recording` a function
that measures as one, `steps` and `evaluation` what `fit` runs by them.
"""

from idl_core.training.graphs.cuda import CannotCapture, graphs_for
from idl_core.training.graphs.evaluation import CapturedEvaluation
from idl_core.training.graphs.steps import CapturedStep

__all__ = ["CannotCapture", "CapturedEvaluation", "CapturedStep", "graphs_for"]
