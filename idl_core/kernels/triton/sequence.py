"""An implicit RNN over a whole sequence by the Triton operators: one launch for all its steps.

W = [[A, B_h], [C, D_h]] maps (state, last hidden state) to (pre-activation, hidden state); what the
inputs drive, [B_u; D_u] u_t, is one product before it.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from idl_core.kernels.problem import Method, Model, SequenceGradients, SequencePass, solution_of
from idl_core.kernels.triton import ops  # noqa: F401 - registers the operators
from idl_core.kernels.triton.equilibrium import name_of


def forward(model: Model, U: Tensor, h0: Tensor, method: Method, all_outputs: bool) -> SequencePass:
    """Run an RNN over the inputs U (m, T, p) from h0 (m, k).

    Keeps states and hidden states (T + 1, m, n + k), and what drives them where φ' needs it.
    """
    k, n = model.C.shape
    m, steps, _ = U.shape
    W, from_U = _matrices(model, U.shape[2])
    drive = F.linear(U.transpose(0, 1), from_U)
    of_state, of_carry = drive[..., :n], drive[..., n:]
    chain, numbers = torch.ops.idl.solve_chain(
        W, of_state, of_carry, h0, None,
        m, steps, k, name_of(method), False, method.solver.tol, method.solver.max_iter,
    )  # fmt: skip
    kept = None if method.activation.dphi_of_output is not None else of_state
    outputs = chain[1:, :, n:].transpose(0, 1) if all_outputs else chain[-1, :, n:]
    # Copies: else the whole sequence would be kept with them.
    return SequencePass(outputs.clone(), (chain, kept), None, chain[-2, :, :n].clone(), numbers)


def backward(
    model: Model, kept: tuple[Tensor, Tensor | None], U: Tensor, grad: Tensor, method: Method
) -> SequenceGradients:
    """The gradients, for that of all outputs (m, T, k) or of the last (m, k), from what `forward`
    has kept."""
    (chain, drive), (k, n), p = kept, model.C.shape, U.shape[2]
    (m, steps, _), known = U.shape, chain[:-1]
    W, from_U = _matrices(model, p)
    point = known
    if drive is not None:
        point = torch.matmul(known, W[:n].T.to(known.dtype)) + drive
    of_h = grad.transpose(0, 1) if grad.dim() == 3 else None
    last = grad if of_h is None else of_h[-1]
    adjoint, numbers = torch.ops.idl.solve_chain(
        W, None, of_h, last, point,
        m, steps, k, name_of(method), True,
        method.adjoint_solver.tol, method.adjoint_solver.max_iter,
    )  # fmt: skip
    V = adjoint[1:]
    of_W = V.flatten(0, 1).T @ known.flatten(0, 1)
    of_inputs = V.flatten(0, 1).T @ U.transpose(0, 1).flatten(0, 1).to(V.dtype)
    of_U = torch.matmul(V, from_U.to(V.dtype)).transpose(0, 1)
    of_A, of_right = of_W[:n, :n], None
    left, right = model.A
    if right is not None:
        of_A, of_right = of_A @ right.to(V.dtype), of_A.T @ left.to(V.dtype)
    gradients = Model(
        of_A,
        of_right,
        torch.cat((of_inputs[:n], of_W[:n, n:]), 1),
        of_W[n:, :n],
        torch.cat((of_inputs[n:], of_W[n:, n:]), 1),
    )
    # A copy: else the rest of the sequence would be kept with it.
    first = V[0, :, :n].clone()
    solution = solution_of(first, numbers, method.adjoint_solver, relative=True)
    return SequenceGradients(gradients, of_U, adjoint[0, :, n:], solution)


def _matrices(model: Model, p: int) -> tuple[Tensor, Tensor]:
    """W (n + k, n + k), in float32 at least, and [B_u; D_u] (n + k, p)."""
    left, right, B, C, D = model
    assert D is not None
    dtype = torch.promote_types(C.dtype, torch.float32)
    with torch.autocast(C.device.type, enabled=False):
        A = left if right is None else left.to(dtype) @ right.to(dtype).T
        rows = ((A, B[:, p:]), (C, D[:, p:]))
        W = torch.cat([torch.cat([part.to(dtype) for part in row], 1) for row in rows])
    return W, torch.cat((B[:, :p], D[:, :p]))
