"""The choice of a backend, torch, numba or triton, and why: the only place that chooses.

`kernel="auto"` takes Triton on a GPU and numba on a CPU, for what they have and are good at, else
torch. Another kernel is nothing else, and an error that says why where it cannot.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from idl_core.activations import ACTIVATIONS
from idl_core.equilibrium.solution import Solution
from idl_core.equilibrium.solvers import Solver
from idl_core.kernels import recurrence
from idl_core.kernels.numba import dense as numba_dense
from idl_core.kernels.numba import model as numba_model
from idl_core.kernels.numba import norm as numba_norm
from idl_core.kernels.numba import sequence as numba_sequence
from idl_core.kernels.numba import support as numba
from idl_core.kernels.numba.programs import SMOOTH
from idl_core.kernels.problem import (
    Affine,
    Found,
    Method,
    Model,
    Pass,
    Sequence,
    SequenceGradients,
    SequencePass,
    Solved,
)
from idl_core.kernels.torch import dense, low_rank, triangular
from idl_core.kernels.torch import model as torch_model
from idl_core.kernels.torch.sequence import SequenceSolver
from idl_core.kernels.triton import equilibrium as triton_equilibrium
from idl_core.kernels.triton import sequence as triton_sequence
from idl_core.kernels.triton import support as triton
from idl_core.kernels.triton.sizes import HIGHEST_RANK, fits_on_chip, shared_memory

KERNELS = ("auto", "torch", "numba", "triton")
# States beyond which `auto` leaves a dense A to torch: each Triton program then reads more of A in
# an iteration than a launch and a library's product take. Counted in docs/kernels.md, not timed.
WIDEST_AUTO = 512
# Of a matrix in the last-level cache, which every tile of numba goes through: beyond, a BLAS is
# faster.
MOST_BYTES = 1 << 25
# Of what is read and written in an iteration of a tile, in the second-level cache: states, what
# drives them, slopes and the history of the acceleration.
_MOST_BYTES_OF_TILE, _BYTES_OF_A_STATE = 1 << 21, 9 * 64


def takes_triton(A: Affine, Z: Tensor, method: Method) -> bool:
    """Whether X = φ(X Aᵀ + Z) goes to Triton, for tensors in the precision that they come in.

    Raises: ValueError where "triton" was asked for and cannot.
    """
    if not _goes_to_triton(method.kernel, Z):
        return False
    obstacle = _triton_obstacle(method, (A.left, Z))
    if A.right is not None and A.left.shape[1] > HIGHEST_RANK:
        obstacle = f"the rank is {A.left.shape[1]}; it takes at most {HIGHEST_RANK}"
    preferred = A.right is not None or len(A.left) <= WIDEST_AUTO
    return _decide("triton", method.kernel, obstacle, preferred) == "triton"


def of_equilibrium(A: Affine, Z: Tensor, X0: Tensor | None, method: Method) -> str:
    """ "numba" or "torch" for X = φ(X Aᵀ + Z), in the precision of the solve.

    Raises: ValueError where "numba" was asked for and cannot.
    """
    if not _may_be_numba(method.kernel):
        return "torch"
    if A.right is not None:
        obstacle: str | None = "of a low rank it takes whole models alone, in float32 or float64"
        return _decide("numba", method.kernel, obstacle)
    obstacle = numba_dense.obstacle(A.left, Z, X0, method.activation, method.solver)
    return _decide("numba", method.kernel, obstacle, _is_small(Z.shape[-1] ** 2, Z))


def of_model(model: Model, U: Tensor, X0: Tensor | None, method: Method) -> str | None:
    """The backend of a whole model, all in one node; None where its parts are nodes of their own.

    Raises: ValueError where the kernel asked for cannot.
    """
    kernel = method.kernel
    if _goes_to_triton(kernel, U):
        whole = model.right is None and not takes_triton(model.A, U, method)
        return "torch" if whole else None
    if _may_be_numba(kernel):
        obstacle = numba_model.obstacle(model, U, X0, method)
        n = model.C.shape[-1]
        numbers = n * (n if model.right is None else model.right.shape[-1])
        small = _is_small(numbers, U) and _BYTES_OF_A_STATE * n <= _MOST_BYTES_OF_TILE
        if _decide("numba", kernel, obstacle, small) == "numba":
            return "numba"
    return "torch" if model.right is None else None


def of_sequence(model: Model, U: Tensor, h0: Tensor, method: Method) -> str:
    """The backend of a sequence. Raises: ValueError where "triton" was asked for and cannot."""
    if not _goes_to_triton(method.kernel, U):
        return "numba" if _may_be_numba(method.kernel) else "torch"
    k, n = model.C.shape
    matrices = [M for M in model if M is not None]
    obstacle = _triton_obstacle(method, (U, h0, *matrices))
    if not fits_on_chip(n, k, U.device):
        obstacle = (
            f"{n} states and {k} hidden features do not fit on chip, in registers and "
            f"{shared_memory(U.device) // 1024} KiB of shared memory"
        )
    return _decide("triton", method.kernel, obstacle)


def equilibrium(backend: str, A: Affine, Z: Tensor, X0: Tensor | None, method: Method) -> Found:
    """Solve X = φ(X Aᵀ + Z) by a backend."""
    if backend == "triton":
        return triton_equilibrium.solve(A, Z, X0, method)
    if backend == "triangular":
        return triangular.solve(A, Z, X0, method)
    if backend == "numba":
        return numba_dense.solve(A, Z, X0, method)
    if A.right is None:
        return dense.solve(A, Z, X0, method)
    return low_rank.solve(A, Z, X0, method)


def equilibrium_adjoint(backend: str, solved: Solved, grad: Tensor, expected: int | None) -> Found:
    """Solve V = φ' ∘ (V A + grad) by the backend of the forward solve or, where it was torch's for
    the sake of φ alone, by numba."""
    if backend == "triton":
        return triton_equilibrium.solve_adjoint(solved, grad)
    method, A, slope = solved.method, solved.A, solved.slope()
    solver = method.adjoint_solver
    if backend == "triangular":
        return triangular.solve_adjoint(A, slope, grad, solver, expected)
    if A.right is None and _may_be_numba(method.kernel):
        obstacle = numba_dense.obstacle(A.left, grad, None, slope, solver)
        if obstacle is None and (backend == "numba" or _is_small(grad.shape[-1] ** 2, grad)):
            found = numba_dense.solve_adjoint(A, slope, grad, solver, expected)
            if found is not None:
                return found
    return by_torch(A, slope, grad, solver, expected)


def by_torch(A: Affine, slope: Tensor, grad: Tensor, solver: Solver, expected: int | None) -> Found:
    """Solve V = slope ∘ (V A + grad) by torch."""
    if A.right is None:
        return dense.solve_adjoint(A, slope, grad, solver, expected)
    return low_rank.solve_adjoint(A, slope, grad, solver, expected)


class ModelPass(NamedTuple):
    """A pass through a whole model.

    Attributes:
        Y: (m, q).
        found: X (m, n), with the product of X and right as the backend keeps it.
        Z: (m, n), of numba in tiles; None where φ' is a function of φ's value.
    """

    Y: Tensor
    found: Pass
    Z: Tensor | None


def model_forward(
    backend: str, model: Model, U: Tensor, X0: Tensor | None, method: Method
) -> ModelPass:
    """Ŷ = X Cᵀ + U Dᵀ with X = φ(X Aᵀ + U Bᵀ)."""
    if backend == "numba":
        found, Y, driven = numba_model.forward(model, U, X0, method)
        return ModelPass(Y, found, driven)
    Z = torch_model.drive(model, U)
    X, _, solution, _ = equilibrium(of_equilibrium(model.A, Z, X0, method), model.A, Z, X0, method)
    kept = Z if method.activation.dphi_of_output is None else None
    Y = torch_model.outputs(model, U, X)
    return ModelPass(Y, Pass(X, None, solution), kept)


def model_backward(
    backend: str, model: Model, U: Tensor, known: ModelPass, grad: Tensor, method: Method
) -> tuple[Tensor, Model, Solution]:
    """The adjoint solution V (m, n) for the gradient of Ŷ (m, q), the gradients of the matrices,
    and how it was solved."""
    if backend == "numba":
        found, sums = numba_model.backward(model, U, known.found, known.Z, grad, method)
        V, solution = found.states, found.solution
    else:
        X, _, forward = known.found
        solved = Solved(model.A, X, None, known.Z, method)
        expected = None if forward is None else forward.common_iterations
        pulled = torch_model.pull(model, grad)
        V, _, solution, _ = equilibrium_adjoint("torch", solved, pulled, expected)
        sums = torch_model.gradients(model, U, X, V, grad)
    assert solution is not None
    return V, sums, solution


def sequence_forward(
    backend: str, model: Model, U: Tensor, h0: Tensor, method: Method, all_outputs: bool
) -> SequencePass:
    """Run an implicit RNN over the inputs U (m, T, p) from h0 (m, k)."""
    if backend == "triton":
        return triton_sequence.forward(model, U, h0, method, all_outputs)
    solve = _SequenceSolves(backend, method.kernel).solve
    return recurrence.forward(model, U, h0, method, all_outputs, solve)


def sequence_backward(
    backend: str,
    model: Model,
    inputs: tuple[Tensor, Tensor],
    kept: tuple[Tensor, ...],
    grad: Tensor,
    method: Method,
    needs_U: bool,
) -> SequenceGradients:
    """The gradients, for that of the outputs; `inputs`: U and h0."""
    if backend == "triton":
        chain, drive = kept
        return triton_sequence.backward(model, (chain, drive), inputs[0], grad, method)
    solves = _SequenceSolves(backend, method.kernel)
    given = (model, inputs, kept[0], grad, method)
    return recurrence.backward(*given, solves.solve, solves.recall, needs_U)


class _SequenceSolves:
    """Solves a sequence, and its adjoint, by numba where it may and can, else by torch.

    Args:
        backend: "torch" or "numba".
        kernel: that was asked for.
    """

    def __init__(self, backend: str, kernel: str) -> None:
        self._numba, self._kernel = backend == "numba", kernel

    def solve(self, sequence: Sequence, solver: Solver) -> recurrence.SolvedSequence:
        """Raises: ValueError where numba was asked for and cannot."""
        if self._takes(sequence, solver):
            return numba_sequence.solve(sequence, solver)
        return SequenceSolver(sequence, solver)

    def recall(self, sequence: Sequence, X: Tensor) -> Tensor:
        """States, carries and inputs of all steps, from the states X."""
        if self._takes(sequence):
            return numba_sequence.recall(sequence, X)
        return recurrence.recall(sequence, X)

    def _takes(self, sequence: Sequence, *solvers: Solver) -> bool:
        if not self._numba:
            return False
        small = _is_small(sum(sequence.into_carry.shape) ** 2, sequence.inputs)
        obstacle = numba_sequence.obstacle(sequence, *solvers)
        return _decide("numba", self._kernel, obstacle, small) == "numba"


def rows_within(A: Tensor, radius: float, kernel: str = "auto") -> bool:
    """Whether ‖A‖∞ ≤ radius is known at little cost; False where it may be so too."""
    return _may_be_numba(kernel) and numba_norm.rows_within(A, radius)


def available() -> dict[str, str]:
    """Kernel name -> 'yes', or why it cannot run here."""
    why = {"numba": numba.why_not(), "triton": triton.why_not("cuda")}
    return {"torch": "yes"} | {
        name: "yes" if no is None else f"no: {no}" for name, no in why.items()
    }


def paths() -> dict[str, str]:
    """Activation -> the kernel that `auto` takes for it here, on the GPU if any, and why torch."""
    why = triton.why_not("cuda")
    usual = "triton" if why is None else f"torch: {why}"
    known = triton.KNOWN
    found = {name: usual if name in known else "torch: no Triton form" for name in ACTIVATIONS}
    if why is not None and not torch.cuda.is_available() and numba.why_not() is None:
        for name, activation in ACTIVATIONS.items():
            if activation.negative_slope is not None or name in SMOOTH:
                found[name] = f"numba where small, else {found[name]}"
    return found


def _goes_to_triton(kernel: str, like: Tensor) -> bool:
    """Whether it is Triton's to say if it can."""
    return kernel == "triton" or (kernel == "auto" and like.is_cuda)


def _may_be_numba(kernel: str) -> bool:
    """Whether numba may be tried. torch.compile follows torch alone, and compiles that itself."""
    return kernel in ("auto", "numba") and not torch.compiler.is_compiling()


def _triton_obstacle(method: Method, tensors: tuple[Tensor, ...]) -> str | None:
    return triton.obstacle(method.activation, (method.solver, method.adjoint_solver), tensors)


def _is_small(numbers: int, like: Tensor) -> bool:
    """Whether a matrix of so many numbers is where numba's programs are fast."""
    return numbers * like.dtype.itemsize <= MOST_BYTES


def _decide(backend: str, kernel: str, obstacle: str | None, preferred: bool = True) -> str:
    """The backend, or torch where there is an obstacle or `auto` does not prefer it."""
    if kernel == backend and obstacle is not None:
        raise ValueError(f"kernel='{kernel}' cannot solve this: {obstacle}; kernel='auto' can")
    takes = obstacle is None and (preferred or kernel == backend)
    return backend if takes else "torch"
