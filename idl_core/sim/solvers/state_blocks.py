"""The two problems of a solve, [A B] from Z and [C D] from Y, in order."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from idl_core.sim.equilibrium_states import equilibrium_states
from idl_core.sim.solvers.base import Array, activation_of, device_of


def regenerated(A: Array, B: Array, U: Array, model_config: Mapping[str, Any]) -> Array:
    """X (n, m): the equilibrium states of A and B themselves, for fitting C and D to them.

    With them the outputs are fitted to what the implicit model will compute, not to the states of
    the network it was learned from.
    """
    device = device_of(model_config)
    left, right, inputs = (
        torch.from_numpy(np.asarray(part, np.float64)).to(device) for part in (A, B, U.T)
    )
    tol = float(model_config.get("atol", 1e-6))
    solution = equilibrium_states(left, right, inputs, activation_of(model_config), tol)
    return np.ascontiguousarray(solution.value.T.cpu().numpy())
