"""The Perron-Frobenius bound against mpmath, of 50 digits, and exact fractions."""

from __future__ import annotations

from fractions import Fraction

import mpmath
import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from torch import Tensor

from idl_core.perron_frobenius import strongly_connected
from idl_core.wellposed import norm_inf, perron_frobenius_bound

few = settings(
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=50,
    phases=[Phase.explicit, Phase.generate],
)


def is_below(A: np.ndarray, bound: float) -> bool:
    """Whether the spectral radius of |A| is at most `bound`, decided in exact arithmetic.

    That is so if and only if all leading principal minors of bound I - |A| are positive (or, at
    the bound itself, none is negative): pivots of Gaussian elimination, an M-matrix needs no
    exchange of rows. One unit in the 40th digit keeps it off the singular case.
    """
    n = len(A)
    lift = Fraction(bound) * (1 + Fraction(1, 10**40)) + Fraction(1, 10**400)
    M = [
        [(lift if i == j else 0) - Fraction(abs(float(A[i, j]))) for j in range(n)]
        for i in range(n)
    ]
    for k in range(n):
        if M[k][k] <= 0:
            return False
        for i in range(k + 1, n):
            factor = M[i][k] / M[k][k]
            for j in range(k, n):
                M[i][j] -= factor * M[k][j]
    return True


def root(A: np.ndarray) -> float:
    if len(A) == 1:
        return float(abs(A[0, 0]))
    with mpmath.workdps(50):
        values = mpmath.eig(mpmath.matrix(np.abs(A).tolist()), left=False, right=False)
        return float(max(abs(value) for value in values))


def check(A: Tensor, truth: float, rel: float = 1e-11) -> None:
    bound = perron_frobenius_bound(A)
    assert is_below(A.double().numpy(), bound)
    assert bound <= truth * (1 + rel) + 1e-300


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_rounded_outwards_and_tight(dtype: torch.dtype) -> None:
    for seed in range(25):
        generator = torch.Generator().manual_seed(seed)
        n = 1 + seed % 7
        A = torch.randn(n, n, generator=generator).to(dtype)
        check(A, root(A.double().numpy()))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_matrix_just_above_one_is_never_proved(dtype: torch.dtype) -> None:
    """Scaled by the fraction next above, so that the root of what is given is just above 1."""
    for seed in range(25):
        A = torch.rand(5, 5, generator=torch.Generator().manual_seed(seed)).double()
        A = (A * (1 + 3e-9) / root(A.numpy())).to(dtype)
        given = A.double().numpy()
        bound = perron_frobenius_bound(A)
        assert is_below(given, bound)
        assert (bound < 1) <= is_below(given, 1.0)


def test_equal_matrices_have_equal_bounds() -> None:
    """All entries 1/n, and doubled, shuffled and transposed: the root is 1 for all of them."""
    for n in (2, 3, 7, 10, 49, 100):
        A = torch.full((n, n), 1.0 / n, dtype=torch.float64)
        bound = perron_frobenius_bound(A)
        assert 1.0 - 1e-15 <= bound <= 1 + 1e-12
        assert bound == pytest.approx(perron_frobenius_bound(A.T), abs=1e-13)


@pytest.mark.parametrize("n", [1, 2, 5, 40])
def test_nilpotent_matrices_have_root_zero(n: int) -> None:
    torch.manual_seed(n)
    A = 1e3 * torch.randn(n, n).triu(1)
    order = torch.randperm(n)
    for matrix in (A, A.T, A[order][:, order]):
        assert perron_frobenius_bound(matrix) == 0.0
    if n > 1:
        assert perron_frobenius_bound(torch.diag(torch.full((n - 1,), 1e30), 1)) == 0.0


@pytest.mark.parametrize("seed", range(20))
def test_blocks_decide_reducible_matrices(seed: int) -> None:
    """Block triangular in a hidden order, with huge couplings that do not count."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 5, size=4)
    n = int(sizes.sum())
    A, start, truth = np.zeros((n, n)), 0, 0.0
    for size in sizes:
        block = rng.random((size, size)) * rng.choice([0.01, 1.0, 5.0])
        A[start : start + size, start : start + size] = block
        A[start : start + size, start + size :] = 1e6 * rng.random((size, n - start - size))
        truth, start = max(truth, root(block)), start + size
    order = rng.permutation(n)
    check(torch.tensor(A[np.ix_(order, order)]), truth)


@pytest.mark.parametrize("n", [2, 3, 8])
def test_periodic_matrices(n: int) -> None:
    """A cycle with weights: the root is their geometric mean; the power method alone goes round."""
    weights = [2.0**k for k in range(-n, n)][:n]
    A = np.zeros((n, n))
    for i, weight in enumerate(weights):
        A[i, (i + 1) % n] = weight
    truth = float(np.prod(weights) ** (1 / n))
    check(torch.tensor(A), truth)


@pytest.mark.parametrize("exponent", [-1000, -300, -50, 50, 300, 1000])
def test_any_scale(exponent: int) -> None:
    A = np.ldexp(np.random.default_rng(0).random((5, 5)), exponent)
    with mpmath.workdps(50):
        scaled = root(np.ldexp(A, -exponent))
    check(torch.tensor(A), float(np.ldexp(scaled, exponent)))


def test_badly_scaled_and_nearly_reducible() -> None:
    for coupling in (1e-3, 1e-8, 1e-14, 1e-100, 1e-300):
        A = np.array([[0.5, 1.0, 0.0], [coupling, 0.5, 1e5], [0.0, coupling, 0.4]])
        bound = perron_frobenius_bound(torch.tensor(A))
        assert is_below(A, bound)
        if coupling >= 1e-14:
            assert bound <= root(A) * (1 + 1e-9)
    slow = np.diag(np.full(30, 0.9)) + 1e-3 * np.eye(30, k=1) + 1e-3 * np.eye(30, k=-1)
    check(torch.tensor(slow), float(np.linalg.eigvalsh(slow).max()) * (1 + 1e-14))


@given(A=arrays.arrays(np.float64, (5, 5), elements=st.integers(-3, 3).map(float)))
@few
def test_small_whole_numbers(A: np.ndarray) -> None:
    """Also reducible, periodic and nilpotent ones; never worse than the norm."""
    bound = perron_frobenius_bound(torch.tensor(A))
    assert is_below(A, bound)
    assert bound <= np.linalg.norm(A, np.inf) * (1 + 1e-12)
    assert bound <= root(A) + 1e-5  # of a defective eigenvalue mpmath has few digits


def test_large_ones() -> None:
    torch.manual_seed(0)
    A = torch.rand(300, 300)
    truth = float(np.abs(np.linalg.eigvals(A.double().numpy())).max())
    assert truth * (1 - 1e-12) <= perron_frobenius_bound(A) <= truth * (1 + 1e-10)
    A = A.triu()
    assert perron_frobenius_bound(A) == float(A.diagonal().max())


def test_certifies_more_than_the_norm() -> None:
    A = torch.tensor([[0.2, 5.0], [0.01, 0.2]])
    assert norm_inf(A) > 1 > perron_frobenius_bound(A)
    assert perron_frobenius_bound(torch.empty(0, 0)) == 0
    assert perron_frobenius_bound(torch.zeros(3, 3)) == 0
    for bad in (float("nan"), float("inf")):
        A[0, 0] = bad
        assert perron_frobenius_bound(A) == float("inf")


@given(edges=arrays.arrays(np.bool_, (7, 7)))
@few
def test_components_are_those_of_reachability(edges: np.ndarray) -> None:
    reach = edges | np.eye(7, dtype=bool)
    for k in range(7):
        reach |= np.outer(reach[:, k], reach[k])
    both = reach & reach.T
    components = strongly_connected(edges)
    assert sorted(node for component in components for node in component) == list(range(7))
    for component in components:
        for node in component:
            assert sorted(component) == np.nonzero(both[node])[0].tolist()
