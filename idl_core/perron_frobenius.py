"""An upper bound on the Perron-Frobenius eigenvalue of |A|, computed so that rounding cannot break
it.

|A| is split into its irreducible blocks, the strongly connected components of its graph: its
spectral radius is the largest of theirs. A block's is bounded by Collatz and Wielandt: for every
positive v it is at most max_i (|A| v)_i / v_i. v is found by power iteration and, where that is
slow, by Noda's inverse iteration, which converges quadratically (Noda, "Note on the computation of
the maximal eigenvalue of a non-negative irreducible matrix", Numer. Math. 17, 1971).
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

Matrix: TypeAlias = NDArray[np.float64]

_CLOSE = 1e-13  # of bounds from above and below: nothing is left to gain
_INVERSE_STEPS = 60  # of Noda's iteration, which takes about five where scales are alike
_FLOOR = 1e-200  # smallest entry of v, its largest being 1


def perron_frobenius_bound(A: Tensor, iterations: int = 100) -> float:
    """Upper bound on the Perron-Frobenius eigenvalue of |A| (n, n).

    Below 1 (for a non-expansive φ) it certifies well-posedness, also where ‖A‖∞ ≥ 1: El Ghaoui et
    al., "Implicit deep learning", SIMODS 3 (2021), theorem 2.8. It is rounded upwards: the exact
    eigenvalue of the matrix as given is never larger. A matrix that is not finite has no bound:
    infinity.

    Args:
        A: of any floating-point dtype, on any device.
        iterations: of the power method, at most, for each irreducible block.
    """
    size = A.detach().abs().double().cpu().numpy()
    if not np.isfinite(size).all():
        return float("inf")
    bound = 0.0
    for block in strongly_connected(size > 0):
        if len(block) == 1:
            bound = max(bound, float(size[block[0], block[0]]))
        else:
            bound = max(bound, _irreducible_bound(size[np.ix_(block, block)], iterations))
    return bound


def _irreducible_bound(size: Matrix, iterations: int) -> float:
    """The bound for an irreducible matrix of magnitudes (n, n), n ≥ 2."""
    exponent = int(np.frexp(size.max())[1])
    size = np.ldexp(size, -exponent)  # exact but for what is too small to count: see _quotients
    v = np.ones(len(size))
    bound = float("inf")
    for _ in range(iterations):
        quotients, image = _quotients(size, v)
        bound = min(bound, float(quotients.max()))
        if bound - quotients.min() <= _CLOSE * bound:
            return float(np.ldexp(bound, exponent))
        # A multiple of v is added, as of the identity to |A|: a periodic matrix would go round.
        v = _normalised(image + 0.5 * bound * v)
    for _ in range(_INVERSE_STEPS):
        try:
            v = _normalised(np.abs(np.linalg.solve(bound * np.eye(len(size)) - size, v)))
        except np.linalg.LinAlgError:  # the bound is the eigenvalue to the last digit
            break
        quotients, _ = _quotients(size, v)
        bound = min(bound, float(quotients.max()))
        if bound - quotients.min() <= _CLOSE * bound:
            break
    return float(np.ldexp(bound, exponent))


def _quotients(size: Matrix, v: Matrix) -> tuple[Matrix, Matrix]:
    """(|A| v)_i / v_i rounded upwards, and |A| v, for v > 0."""
    image = size @ v
    # A sum of n non-negative products is short by at most n units in the last place, a quotient by
    # one, and by n of the smallest normal numbers where products, or scaled entries, underflow.
    n, limits = len(v), np.finfo(np.float64)
    raised = image * (1 + (n + 3) * limits.eps) + 2 * n * limits.tiny
    return raised / v * (1 + 2 * limits.eps), image


def _normalised(v: Matrix) -> Matrix:
    """v with its largest entry 1 and all of them positive; ones where it is not finite."""
    top = v.max()
    if not (np.isfinite(top) and top > 0):
        return np.ones_like(v)
    scaled: Matrix = np.maximum(v / top, _FLOOR)
    return scaled


def strongly_connected(edges: NDArray[np.bool_]) -> list[list[int]]:
    """The strongly connected components of a directed graph, given by its adjacency (n, n).

    Tarjan, "Depth-first search and linear graph algorithms", SIAM J. Comput. 1 (1972), without
    recursion; a node's neighbours are looked at together, so that it takes O(n²) in all.
    """
    n = len(edges)
    number = np.full(n, -1)  # of each node, in the order in which they are reached
    lowest = np.zeros(n, dtype=int)
    on_stack = np.zeros(n, dtype=bool)
    stack: list[int] = []
    components: list[list[int]] = []
    reached = 0
    for root in range(n):
        path = [root] if number[root] < 0 else []
        while path:
            node = path[-1]
            if number[node] < 0:
                number[node] = lowest[node] = reached
                reached += 1
                stack.append(node)
                on_stack[node] = True
            unseen = edges[node] & (number < 0)
            following = int(unseen.argmax())
            if unseen[following]:
                path.append(following)
                continue
            path.pop()
            back = number[edges[node] & on_stack]
            if len(back):
                lowest[node] = min(lowest[node], back.min())
            if path:
                lowest[path[-1]] = min(lowest[path[-1]], lowest[node])
            if lowest[node] == number[node]:
                start = stack.index(node)
                components.append(stack[start:])
                on_stack[stack[start:]] = False
                del stack[start:]
    return components
