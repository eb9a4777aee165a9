"""The states that A and B themselves give, for the second problem of a solve."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from idl_core.sim.equilibrium_states import equilibrium_states
from idl_core.sim.solvers.base import Array, device_of


def regenerated(A: Array, B: Array, U: Array, model_config: Mapping[str, Any]) -> Array:
    """X (n, m): the equilibrium states of A and B themselves, for fitting C and D to them.

    With them the outputs are fitted to what the implicit model will compute, not to the states of
    the network it was learned from.
    """
    device = device_of(model_config)
    left, right, inputs = (
        torch.from_numpy(np.asarray(part, np.float64)).to(device) for part in (A, B, U.T)
    )
    phi = model_config.get("activation_fn", torch.relu)
    tol = float(model_config.get("atol", 1e-6))
    solution = equilibrium_states(left, right, inputs, phi, tol)
    return np.ascontiguousarray(solution.value.T.cpu().numpy())
