"""The implicit RNN: a recurrent network whose step is an implicit model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idl_core.equilibrium.solution import LastSolution, Solution, SolveStats
from idl_core.equilibrium.transforms import has_no_values, refuse_transforms
from idl_core.functions import ImplicitFunction
from idl_core.kernels import Model, recurrent_output
from idl_core.models.implicit import ImplicitModel
from idl_core.models.window_changes import changes, check_changes, start_from_persistence

_MEMORY = 0.9
"""How much of a hidden state is there after a step, before training."""


class ImplicitRNNCell(nn.Module):
    """The recurrence: at each step an implicit model on the input and the last hidden state.

        X_t = φ(A X_t + B [u_t, h_{t-1}])
        h_t = C X_t + D [u_t, h_{t-1}]

    Each step is solved from the equilibrium of the step before. The whole sequence is one autograd
    node that keeps the X_t and no more: memory grows as T·m·n, whatever the iterations. (A function
    `f` that solves in its own way, as the triangular one does, is applied step by step instead,
    with the same result.)

    D begins as a rotation of the hidden state, shortened to 0.9: what a random one would forget.

    Args:
        input_dim: features of u_t.
        implicit_hidden_dim: n, number of states of X_t.
        hidden_dim: features of h_t.
        **options: of the `ImplicitModel` of a step: f, no_D, bias, is_low_rank, rank; and settings,
            an `ImplicitSettings`, or its fields by name.

    Raises:
        ValueError: a size or option out of range.
    """

    def __init__(
        self, input_dim: int, implicit_hidden_dim: int, hidden_dim: int, **options: Any
    ) -> None:
        super().__init__()
        if input_dim < 1:
            raise ValueError(f"input_dim must be at least 1, not {input_dim!r}")
        self.input_dim, self.hidden_dim = input_dim, hidden_dim
        self.layer = ImplicitModel(
            input_dim + hidden_dim, hidden_dim, implicit_hidden_dim, **options
        )
        self._give_memory()

    def _give_memory(self) -> None:
        """Set the part of D that h_{t-1} passes through to a rotation, a little shortened.

        With small random weights there an input is forgotten within a few steps, and so are
        gradients: what a series did a day ago is then hardly learnt. (Orthogonal recurrent
        weights: Saxe, McClelland and Ganguli, ICLR 2014.)
        """
        if self.layer.D is not None:
            with torch.no_grad():
                own = self.layer.D[:, self.input_dim : self.input_dim + self.hidden_dim]
                own.copy_(nn.init.orthogonal_(torch.empty_like(own), gain=_MEMORY))

    @property
    def last_solution(self) -> LastSolution:
        """Of the most recent call: for each sample the worst of its time steps."""
        return self.layer.last_solution

    def forward(self, x: Tensor, h0: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run over a batch of sequences.

        Args:
            x: (m, T, input_dim).
            h0: the initial hidden state (m, hidden_dim); None: zeros.

        Returns:
            All hidden states (m, T, hidden_dim), and the last (m, hidden_dim).

        Raises:
            ValueError: x or h0 of another shape.
        """
        outputs = self._run(x, h0, all_outputs=True)
        if x.shape[1]:
            return outputs, outputs[:, -1]
        return outputs, self._initial(x, h0)

    def last(self, x: Tensor, h0: Tensor | None = None) -> Tensor:
        """The last hidden state (m, hidden_dim) alone, which takes less memory."""
        return self._run(x, h0, all_outputs=False)

    def _run(self, x: Tensor, h0: Tensor | None, all_outputs: bool) -> Tensor:
        if x.dim() != 3 or x.shape[2] != self.input_dim:
            raise ValueError(
                f"x has shape {tuple(x.shape)}; the model takes (batch, time, {self.input_dim})"
            )
        h = self._initial(x, h0)
        self.layer.last_solution = report = LastSolution()  # written, never read: threads share it
        if not x.shape[1]:
            return x.new_empty(*x.shape[:2], self.hidden_dim) if all_outputs else h
        f, like = self.layer.f, self.layer.C.new_empty(0, self.layer.hidden_dim)
        if _solves_its_own_way(f) or has_no_values(x) or f.phi_is_learnt(like):
            return self._step_by_step(x, h, all_outputs, report)
        return self._as_one_node(x, h, all_outputs, report)

    def _initial(self, x: Tensor, h0: Tensor | None) -> Tensor:
        shape = (x.shape[0], self.hidden_dim)
        if h0 is None:
            return x.new_zeros(shape, dtype=self.layer.C.dtype)
        if h0.shape != shape:
            raise ValueError(f"h0 has shape {tuple(h0.shape)}, not {shape}")
        return h0

    def _as_one_node(
        self, x: Tensor, h0: Tensor, all_outputs: bool, report: LastSolution
    ) -> Tensor:
        layer = self.layer
        f = layer.f
        B: Tensor = layer.B
        D: Tensor | None = layer.D
        if layer.bias:
            # The kernel has the columns of the inputs first; the constant's is the last.
            x, i = F.pad(x, (0, 1), value=1.0), self.input_dim
            B = torch.cat((B[:, :i], B[:, -1:], B[:, i:-1]), 1)
            D = None if D is None else torch.cat((D[:, :i], D[:, -1:], D[:, i:-1]), 1)
        if D is None:
            D = layer.C.new_zeros(self.hidden_dim, B.shape[1])
        left: Tensor
        right: Tensor | None
        if layer.is_low_rank:
            left, right = f.constrain_low_rank(layer.L, layer.R)
        else:
            left, right = f.constrain(layer.A), None
        refuse_transforms(x, h0, left, right, B, layer.C, D)
        model = Model(left, right, B, layer.C, D)
        how = f.method(report, "the implicit RNN")
        outputs = recurrent_output(model, x, h0, how, all_outputs=all_outputs)
        if report.forward is not None and not torch.compiler.is_compiling():
            report.forward.warn_unless_converged("the implicit RNN")
        return outputs

    def _step_by_step(
        self, x: Tensor, h: Tensor, all_outputs: bool, report: LastSolution
    ) -> Tensor:
        outputs, solutions = [], []
        for u in x.unbind(1):
            step = torch.cat((u, h.to(u.dtype)), 1)
            h = self.layer.predict(step, None, report)
            outputs.append(h)
            solutions.append(report.forward)
        report.forward = _all_steps(solutions)
        return torch.stack(outputs, 1) if all_outputs else h


class ImplicitRNN(nn.Module):
    """Predicts from a sequence: an `ImplicitRNNCell`, and a linear layer on its hidden state.

    Args:
        input_dim: features of a time step.
        output_dim: features of the prediction.
        implicit_hidden_dim: n, number of states of the equilibrium of a step.
        hidden_dim: features that pass from step to step.
        differences: see the changes of the input and predict the next, see `window_changes`.
        **options: as of `ImplicitRNNCell`.

    Raises:
        ValueError: a size or option out of range.
    """

    __call__: Callable[..., Tensor]  # of nn.Module, which does not say what forward returns

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        implicit_hidden_dim: int,
        hidden_dim: int,
        *,
        differences: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        self.recurrent = ImplicitRNNCell(input_dim, implicit_hidden_dim, hidden_dim, **options)
        self.linear = nn.Linear(hidden_dim, output_dim)
        self.differences = differences
        if differences:
            check_changes(input_dim, output_dim)
            start_from_persistence(self.linear)

    @property
    def last_solution(self) -> LastSolution:
        """Of the most recent call: for each sample the worst of its time steps."""
        return self.recurrent.last_solution

    def forward(
        self, x: Tensor, h0: Tensor | None = None, *, return_sequence: bool = False
    ) -> Tensor:
        """Predict from a batch of sequences.

        Args:
            x: (m, T, input_dim).
            h0: the initial hidden state (m, hidden_dim); None: zeros.
            return_sequence: predict at every time step.

        Returns:
            The prediction after the last step (m, output_dim), or those after all (m, T,
            output_dim). `last_solution` then tells the iterations and residuals.

        Raises:
            ValueError: x or h0 of another shape; with differences, T < 2 or return_sequence.
        """
        if self.differences:
            if return_sequence:
                raise ValueError("return_sequence: with differences there is one prediction")
            u, last, size = changes(x)
            forecast: Tensor = last + size * self.linear(self.recurrent.last(u, h0))
            return forecast
        h = self.recurrent(x, h0)[0] if return_sequence else self.recurrent.last(x, h0)
        prediction: Tensor = self.linear(h)
        return prediction


def _all_steps(solutions: list[Solution | None]) -> Solution | None:
    """The solutions of all steps as one: the last value, and for each sample the worst figures."""
    known = [s for s in solutions if s is not None]
    if not known:  # a function that reports nothing
        return None
    steps = SolveStats(*(torch.stack(one) for one in zip(*(s.stats for s in known), strict=True)))
    last, converged = known[-1], all(s.all_converged for s in known)
    return Solution(last.value, steps.worst_step(), last.tol, known_converged=converged)


def _solves_its_own_way(f: ImplicitFunction) -> bool:
    """Whether f replaces the solve of `ImplicitFunction`, which the kernel knows how to run."""
    own = type(f)
    return (own.solve, own.solve_low_rank) != (
        ImplicitFunction.solve,
        ImplicitFunction.solve_low_rank,
    )
