"""The projections onto ‖A‖∞ ≤ κ against a sort-based projection, CVXPY and eigenvalues."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from idl_core.wellposed import PROJECTIONS, norm_inf

DTYPES = [torch.float32, torch.float64]
KAPPAS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.99, 1.0])
few = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=150,
    phases=[Phase.explicit, Phase.generate],  # no shrinking: a hang would be waited for again
)


@contextmanager
def a_hang_is_a_failure(seconds: float = 5.0) -> Iterator[None]:
    """An iteration in floating point that need not end is a fault to report, not to wait for."""

    def fail(*_: object) -> None:
        raise AssertionError("the projection does not end")

    before = signal.signal(signal.SIGALRM, fail)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def project(name: str, A: Tensor, kappa: float) -> Tensor:
    with a_hang_is_a_failure():
        return PROJECTIONS[name](A, kappa)


def by_sorting(A: np.ndarray, kappa: float) -> np.ndarray:
    """Each row onto the ℓ1 ball: Duchi et al., "Efficient projections onto the ℓ1-ball", 2008."""
    projected = A.astype(np.float64).copy()
    for row in projected:
        if np.abs(row).sum() <= kappa:
            continue
        size = np.sort(np.abs(row))[::-1]
        threshold = (np.cumsum(size) - kappa) / np.arange(1, len(size) + 1)
        support = np.nonzero(size > threshold)[0]
        theta = threshold[support[-1]] if len(support) else size[0]
        row[:] = np.sign(row) * np.maximum(np.abs(row) - theta, 0)
    return projected


def rounding(A: Tensor) -> float:
    """What sums over rows of A may be off by."""
    return 8 * A.shape[1] * torch.finfo(A.dtype).eps * max(1.0, float(A.abs().amax()))


@st.composite
def matrices(draw: st.DrawFn) -> Tensor:
    """Up to 5 × 8, of both dtypes; round numbers make ties and zeros, where care is due."""
    round_numbers = st.integers(-20, 20).map(lambda i: i / 10)
    any_numbers = st.floats(-10, 10, width=32, allow_subnormal=False)
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 8)))
    elements = draw(st.sampled_from([round_numbers, any_numbers]))
    values = draw(arrays.arrays(np.float64, shape, elements=elements))
    return torch.tensor(values, dtype=draw(st.sampled_from(DTYPES)))


def test_the_reference_agrees_with_cvxpy() -> None:
    cvxpy = pytest.importorskip("cvxpy")
    A = np.random.default_rng(0).normal(size=(6, 5)) * [[0.05], [0.3], [1], [2], [5], [10]]
    X = cvxpy.Variable(A.shape)
    ball = [cvxpy.norm1(X[i]) <= 0.99 for i in range(len(A))]
    cvxpy.Problem(cvxpy.Minimize(cvxpy.sum_squares(X - A)), ball).solve(solver="CLARABEL")
    assert np.allclose(by_sorting(A, 0.99), X.value, atol=1e-5)


@few
@given(A=matrices(), kappa=KAPPAS)
def test_the_ball_projection_is_the_nearest_point(A: Tensor, kappa: float) -> None:
    projected = project("ball", A, kappa)
    assert projected.dtype == A.dtype
    expected = torch.from_numpy(by_sorting(A.numpy(), kappa))
    assert torch.allclose(projected.double(), expected, rtol=0, atol=rounding(A))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", [(1, 1), (7, 1), (1, 300), (300, 300), (40, 1000)])
@pytest.mark.parametrize("size", [1e-3, 0.1, 1.0, 30.0])
def test_the_ball_projection_of_larger_matrices(
    shape: tuple[int, int], size: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    A = (size * torch.randn(shape)).to(dtype)
    expected = torch.from_numpy(by_sorting(A.numpy(), 0.99))
    assert torch.allclose(project("ball", A, 0.99).double(), expected, rtol=0, atol=rounding(A))


@pytest.mark.parametrize("name", PROJECTIONS)
@few
@given(A=matrices(), kappa=KAPPAS)
def test_every_projection_ends_within_the_ball_and_stays(
    name: str, A: Tensor, kappa: float
) -> None:
    once = project(name, A, kappa)
    assert float(once.double().abs().sum(1).amax()) <= kappa + rounding(A)
    assert torch.allclose(project(name, once, kappa), once, rtol=0, atol=rounding(A))
    assert (once * A >= 0).all()  # no sign changes
    assert (once.abs() <= A.abs() + rounding(A)).all()
    inside = A.abs().sum(1) <= kappa * (1 - 1e-6)
    if inside.all():
        assert torch.equal(once, A)
    elif name != "global":
        assert torch.equal(once[inside], A[inside])


@few
@given(A=matrices(), kappa=KAPPAS, seed=st.integers(0, 99))
def test_the_ball_projection_is_non_expansive(A: Tensor, kappa: float, seed: int) -> None:
    noise = torch.randn(A.shape, generator=torch.Generator().manual_seed(seed)).to(A.dtype)
    other = A + 0.3 * noise
    apart = torch.linalg.norm(project("ball", A, kappa) - project("ball", other, kappa))
    assert apart <= torch.linalg.norm(A - other) + 4 * rounding(A)


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("dtype", [*DTYPES, torch.bfloat16])
def test_trained_sizes_stay_well_posed(name: str, dtype: torch.dtype) -> None:
    """Whatever the size of the entries and the precision, the result certifies ‖A‖∞ < 1."""
    for size in (0.01, 1.0, 1e3, 1e5):
        torch.manual_seed(0)
        A = (size * torch.randn(300, 300)).to(dtype)
        norm = float(project(name, A, 0.99).double().abs().sum(1).amax())
        assert 0.95 < norm < 1, f"entries of size {size:g}: ‖A‖∞ = {norm}"


@pytest.mark.parametrize("name", PROJECTIONS)
def test_special_rows(name: str) -> None:
    A = torch.tensor([[0.0, 0.0, 0.0], [2.0, -2.0, 2.0], [0.0, 5.0, 0.0], [0.3, 0.3, -0.3]])
    projected = project(name, A, 0.9)
    assert torch.equal(projected[0], A[0])
    if name != "global":
        assert torch.allclose(projected[1], torch.tensor([0.3, -0.3, 0.3]))
        assert torch.allclose(projected[2], torch.tensor([0.0, 0.9, 0.0]))
        assert torch.allclose(projected[3], A[3])
    assert torch.count_nonzero(project(name, A, 0.0)) == 0
    for empty in (torch.empty(0, 3), torch.empty(0, 0), torch.empty(3, 0)):
        assert project(name, empty, 0.9).shape == empty.shape


def test_scalings_are_what_they_say() -> None:
    A = np.random.default_rng(0).normal(size=(5, 6)) * [[0.01], [0.1], [1], [10], [0.05]]
    sums = np.abs(A).sum(1, keepdims=True)
    by_row = A * np.minimum(1, 0.9 / sums)
    assert np.allclose(PROJECTIONS["row"](torch.tensor(A), 0.9), by_row)
    assert np.allclose(PROJECTIONS["global"](torch.tensor(A), 0.9), A * 0.9 / sums.max())


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_a_non_finite_entry_is_not_hidden(name: str, bad: float) -> None:
    """Training that went wrong is to be seen in the loss, neither hidden nor waited for."""
    for position in ((0, 0), (1, 2)):
        A = torch.ones(3, 4)
        A[position] = bad
        assert not project(name, A, 0.9).isfinite().all()


@pytest.mark.parametrize("name", PROJECTIONS)
def test_gradient_is_the_identity_within_the_ball(name: str) -> None:
    torch.manual_seed(0)
    A = (torch.randn(4, 5) / 20).requires_grad_()
    grad = torch.randn(4, 5)
    PROJECTIONS[name](A, 0.99).backward(grad)
    assert torch.equal(A.grad, grad)


@pytest.mark.parametrize("kappa", [0.5, 0.99])
@pytest.mark.parametrize("name", PROJECTIONS)
def test_gradcheck_of_rows_inside_and_outside(name: str, kappa: float) -> None:
    torch.manual_seed(0)
    A = torch.randn(6, 5, dtype=torch.float64)
    A *= torch.tensor([[0.02], [0.3], [1], [3], [10], [0.04]], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda a: PROJECTIONS[name](a, kappa), A.requires_grad_())


@pytest.mark.parametrize("name", PROJECTIONS)
@pytest.mark.parametrize("others", [0.0, 3.0])
def test_gradient_of_a_row_of_zeros(name: str, others: float) -> None:
    """Sparse models have rows of zeros: they lie within the ball and pass the gradient on."""
    A = torch.zeros(2, 3)
    A[0] = others
    A.requires_grad_()
    grad = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    PROJECTIONS[name](A, 0.9).backward(grad)
    assert A.grad.isfinite().all()
    factor = 0.1 if name == "global" and others else 1.0
    assert torch.allclose(A.grad[1], factor * grad[1])


@pytest.mark.parametrize("factor", [0.5, 3.0])
def test_without_a_look_at_the_norm_it_is_the_same(factor: float) -> None:
    """As on a GPU, where to look would be to wait: here torch.compile asks for that form."""
    scale = PROJECTIONS["global"]
    torch.manual_seed(0)
    B = torch.randn(4, 4, dtype=torch.float64)
    A = (factor * B / norm_inf(B)).requires_grad_()
    compiled = torch.compile(scale, fullgraph=True, backend="eager")
    weight = torch.randn_like(A)
    results = []
    for project in (scale, compiled):
        value = project(A, 0.9)
        results.append((value, *torch.autograd.grad((value * weight).sum(), A)))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.allclose(results[0][1], results[1][1], rtol=1e-14)
    zero = torch.zeros(3, 3, requires_grad=True)
    compiled(zero, 0.9).sum().backward()
    assert torch.equal(zero.grad, torch.ones(3, 3))


def test_norm_inf_is_numpys() -> None:
    A = np.random.default_rng(0).normal(size=(4, 7))
    assert float(norm_inf(torch.tensor(A))) == pytest.approx(np.linalg.norm(A, np.inf))
    assert float(norm_inf(torch.empty(0, 3))) == float(norm_inf(torch.empty(3, 0))) == 0.0
