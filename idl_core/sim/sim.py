"""SIM: learns an implicit model from the states of a trained network, without back-propagation."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from idl_core.activations import ACTIVATIONS
from idl_core.equilibrium import Solution
from idl_core.models import ImplicitModel
from idl_core.sim.activation_names import HOMOGENEOUS, activation_name
from idl_core.sim.equilibrium_states import equilibrium_states
from idl_core.sim.fit_quality import FitQuality
from idl_core.sim.lipschitz import lipschitz_constant
from idl_core.sim.regenerated_states import regenerated
from idl_core.sim.scaling import Scalers
from idl_core.sim.solvers.base import BaseSolver
from idl_core.sim.state_files import load_states, save_states
from idl_core.sim.states import Layer, record_states
from idl_core.wellposed import project_rows

Array: TypeAlias = np.ndarray[Any, Any]
States = dict[str, Array]


class SIM:
    """State-driven implicit modelling (Tsai et al., arXiv 2209.09389).

    From the pre-activations Z, post-activations X, inputs U and outputs Y of a trained network,
    a solver finds A, B with Z ≈ AX + BU and ‖A‖∞ ≤ κ, and C, D with Y ≈ CX + DU: the implicit
    model X = φ(AX + BU), Ŷ = CX + DU then imitates the network.

    Args:
        activation_fn: φ, the network's activation: a function, a module, or a name in
            `idl_core.activations.ACTIVATIONS`.
        kappa: bound on ‖A‖∞ (over φ's Lipschitz constant where that is above 1), in [0, 1).
        atol: bound on max|φ(AX + BU) - X| of each sample's equilibrium.
        skip_layers: with a number, only the last activation of each block of layers gives states;
            see `idl_core.sim.states.activation_modules`.
        standardize: solve for standardised states; see `idl_core.sim.scaling.Scalers`.
        device: of the weights and of evaluation.
        dtype: of the weights; solvers work in float64 whatever it is.

    Attributes:
        radius: bound on ‖A‖∞ with which φ(A·) contracts by kappa.
        weights: A (n, n), B (n, p), C (q, n), D (q, p), each None until there is one. With
            `standardize`, they are those between standardised quantities.
        layers: which rows of X are which layer's, deepest first; empty where unknown.
        quality: how well the weights fit the states they were solved from; None before.
        last_solution: of the most recent equilibrium; tells iterations and residuals.

    Raises:
        ValueError: a setting out of range, or activation_fn has no Lipschitz constant.
    """

    def __init__(
        self,
        activation_fn: Callable[[Tensor], Tensor] | str = nn.functional.relu,
        kappa: float = 0.99,
        atol: float = 1e-6,
        skip_layers: int | None = None,
        standardize: bool = False,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if not 0 <= kappa < 1:
            raise ValueError(f"kappa must be in [0, 1), not {kappa!r}")
        if not atol > 0:
            raise ValueError(f"atol must be positive, not {atol!r}")
        self.activation = activation_name(activation_fn)
        self.activation_fn = (
            ACTIVATIONS[activation_fn].phi if isinstance(activation_fn, str) else activation_fn
        )
        self.kappa, self.atol = kappa, atol
        self.radius = kappa / max(1.0, lipschitz_constant(self.activation_fn))
        self.skip_layers, self.standardize = skip_layers, standardize
        self.device, self.dtype = torch.device(device), dtype
        self.weights: dict[str, Tensor | None] = dict.fromkeys("ABCD")
        self.scalers: Scalers | None = None
        self.layers: list[Layer] = []
        self.quality: FitQuality | None = None
        self.last_solution: Solution | None = None

    def train(
        self,
        solver: BaseSolver,
        model: nn.Module | None = None,
        dataloader: Iterable[Any] | None = None,
        states_data_path: str | os.PathLike[str] | None = None,
        save_states_path: str | os.PathLike[str] | None = None,
    ) -> SIM:
        """Collect the states of `model` on `dataloader`, or read them, and solve for the weights.

        Args:
            solver: a `BaseSolver`.
            model: the trained network; not needed with `states_data_path`.
            dataloader: batches of inputs, or of (inputs, targets).
            states_data_path: read the states from this file instead.
            save_states_path: write the states collected to this file.

        Returns:
            self.

        Raises:
            ValueError: neither source of states is given, or what it gives cannot be used.
        """
        if states_data_path is not None:
            states, self.layers = load_states(states_data_path)
            self._check_activation(states)
        elif model is None or dataloader is None:
            raise ValueError("give model and dataloader to collect states, or states_data_path")
        else:
            states = self.get_states(model, dataloader)
            if save_states_path is not None:
                save_states(save_states_path, states, self.layers)
        return self.fit(solver, states)

    def get_states(self, model: nn.Module, dataloader: Iterable[Any]) -> States:
        """The states of a network: X (n, m), U (p, m), Z (n, m), Y (q, m), columns are samples.

        The network is run in evaluation mode on the device it is on, and left as it was.

        Raises:
            NoActivations: the network has no activation module.
            NotEnoughMemory: the states will not fit.
            ValueError: the network's activations are not `activation_fn`, or there are no data.
        """
        states, self.layers = record_states(model, dataloader, self.skip_layers)
        self._check_activation(states)
        return states

    def fit(self, solver: BaseSolver, states: States) -> SIM:
        """Solve for the weights from states as `get_states` gives them; returns self."""
        if self.standardize:
            self.scalers = Scalers.fit(states)
            states = self.scalers.apply(states)
        config = {
            "activation_fn": self._phi(torch.float64),
            "device": self.device,
            "atol": self.atol,
            "kappa": self.radius,
        }
        found = solver.solve(states["X"], states["U"], states["Z"], states["Y"], config)
        arrays = dict(zip("ABCD", (_dense(part) for part in found), strict=True))
        anew = None
        if getattr(solver, "regen_states", False):
            anew = regenerated(arrays["A"], arrays["B"], states["U"], config)
        self.quality = FitQuality.of(arrays, states, self.layers, solver.report, anew, self.scalers)
        well_posed = np.abs(arrays["A"]).sum(1).max(initial=0.0) <= self.radius * (1 + 1e-9)
        self.weights = {
            name: torch.from_numpy(np.ascontiguousarray(value)).to(self.device, self.dtype)
            for name, value in arrays.items()
        }
        if well_posed:
            self.weights["A"] = _inside(self._weight("A"), self.radius)
        return self

    @torch.no_grad()
    def __call__(self, inputs: Tensor) -> Tensor:
        """Ŷ (m, q) for a batch of inputs (m, *input).

        Raises:
            RuntimeError: there are no weights yet.
        """
        A, B, C, D = (self._weight(name) for name in "ABCD")
        U = inputs.to(self.device, self.dtype).flatten(1)
        if U.shape[1] != B.shape[1]:
            raise ValueError(f"inputs have {U.shape[1]} features a sample; SIM has {B.shape[1]}")
        if self.scalers is not None:
            U = U / self._like(self.scalers.U.spread)
        # The equilibrium needs the digits that autocast would leave out.
        with torch.autocast(self.device.type, enabled=False):
            self.last_solution = equilibrium_states(A, B, U, self._phi(self.dtype), self.atol)
            Y = self.last_solution.value @ C.T + U @ D.T
        if self.scalers is not None:
            Y = Y * self._like(self.scalers.Y.spread)
        return Y

    def evaluate(self, dataloader: Iterable[Any]) -> float:
        """Share of the samples (inputs, targets) whose largest output is their target's."""
        right = total = 0
        for inputs, targets in dataloader:
            predicted = self(inputs).argmax(1).cpu()
            right += int((predicted == targets.cpu()).sum())
            total += len(targets)
        if not total:
            raise ValueError("the data loader gives no samples: there is nothing to evaluate")
        return right / total

    def to(self, device: str | torch.device | None = None, dtype: torch.dtype | None = None) -> SIM:
        """Move the weights to a device, a dtype or both; returns self.

        Rows of A in the ball stay there, which may take some units of rounding.
        """
        A = self.weights["A"]
        in_ball = A is not None and _sums_within(A, self.radius)
        self.device = self.device if device is None else torch.device(device)
        self.dtype = self.dtype if dtype is None else dtype
        for name, value in self.weights.items():
            self.weights[name] = None if value is None else value.to(self.device, self.dtype)
        if in_ball:
            self.weights["A"] = _inside(self._weight("A"), self.radius)
        return self

    def to_implicit_model(self) -> ImplicitModel:
        """The same model as an `ImplicitModel`, which training can go on from.

        Its A lies in the ball, so that the model's own projection leaves it as it is. With
        `standardize` it takes raw inputs and gives raw outputs.

        Raises:
            ValueError: φ is none of the project's activations, or A is not well-posed, or the
                states were standardised with a φ that does not commute with scaling.
        """
        A, B, C, D = (self._weight(name) for name in "ABCD")
        if self.activation is None:
            raise ValueError(
                f"activation_fn must be one of {', '.join(ACTIVATIONS)} to become an ImplicitModel"
            )
        norm = float(A.abs().sum(1).max())
        if project_rows(A, self.radius) is not A:
            raise ValueError(
                f"‖A‖∞ = {norm:.4g} is above {self.radius:.4g}: the model would change A; use a "
                "solver that keeps it well-posed"
            )
        scalers = self.scalers
        if scalers is not None:
            if self.activation not in HOMOGENEOUS:
                raise ValueError(f"standardised states with {self.activation} have no such model")
            spread, out = self._like(scalers.U.spread), self._like(scalers.Y.spread)[:, None]
            B, C, D = B / spread, out * C, out * (D / spread)
        model = ImplicitModel(
            B.shape[1], len(C), len(A), kappa=self.kappa, activation=self.activation
        )
        model = model.to(self.device, self.dtype)
        with torch.no_grad():
            for parameter, value in ((model.A, A), (model.B, B), (model.C, C), (model.D, D)):
                assert parameter is not None
                parameter.copy_(value)
        return model

    def _weight(self, name: str) -> Tensor:
        value = self.weights[name]
        if value is None:
            raise RuntimeError("SIM has no weights yet: call train first")
        return value

    def _phi(self, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """φ of states (m, n) in the units that the weights are for; see `Scalers`."""
        if self.scalers is None or self.activation in HOMOGENEOUS:
            return self.activation_fn
        spread = torch.from_numpy(self.scalers.X.spread).to(self.device, dtype)
        return lambda t: self.activation_fn(spread * t) / spread

    def _like(self, values: Array) -> Tensor:
        return torch.from_numpy(values).to(self.device, self.dtype)

    def _check_activation(self, states: States) -> None:
        """Raise ValueError where X is not φ(Z)."""
        step = max(1, states["Z"].shape[1] // 256)
        Z, X = (torch.from_numpy(states[key][:, ::step].copy()) for key in "ZX")
        found = self.activation_fn(Z.clone().to(self.device)).cpu()
        # What half precision holds may have been rounded to it.
        half = (Z.bfloat16().to(Z.dtype) == Z) | (Z.half().to(Z.dtype) == Z)
        wrong = (found - X).abs() > torch.where(half, 2.0**-7, 1e-3) * (Z.abs() + X.abs())
        for layer in self.layers or [Layer("", 0, len(Z))]:
            if bool(wrong[layer.start : layer.stop].any()):
                name = self.activation or getattr(self.activation_fn, "__name__", "activation_fn")
                raise ValueError(
                    f"the network's activation {layer.name} is not {name}: give SIM the network's "
                    "own activation_fn"
                )


def _dense(value: Any) -> Array:
    """A solver's matrix as a float64 array, whatever it was given as (sparse, tensor, array)."""
    if isinstance(value, Tensor):
        value = value.detach().cpu().double().numpy()
    elif hasattr(value, "toarray"):
        value = value.toarray()
    return np.asarray(value, dtype=np.float64)


def _sums_within(A: Tensor, radius: float) -> bool:
    """Whether A's rows are in the ball but for what the order of a sum may change."""
    rounding = A.shape[1] * torch.finfo(A.dtype).eps
    return bool((A.abs().sum(1).double() <= radius * (1 + rounding)).all())


def _inside(A: Tensor, radius: float) -> Tensor:
    """A, its rows shrunk by units of rounding until torch's own sums find them in the ball."""
    for _ in range(16):
        sums = A.abs().sum(1)
        # Compared as double precision numbers: `project_rows` does so too.
        over = sums.double() > radius
        if not bool(over.any()):
            break
        # Aimed below the bound, for an order of summation other than this one.
        aim = radius * (1 - 8 * torch.finfo(A.dtype).eps)
        A = torch.where(over[:, None], A * (aim / sums.double()).to(A.dtype)[:, None], A)
    return A
