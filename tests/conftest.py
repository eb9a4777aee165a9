"""Settings of the whole suite."""

from __future__ import annotations

import torch

# The tests' matrices are tiny: a second thread costs more than it gives.
torch.set_num_threads(1)
