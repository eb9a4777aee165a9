"""What the programs compile to, for GPUs that need not be there."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from ttir import Launcher, Operation, compiled, parse

from idl_core.kernels.triton import chain, low_rank, sizes, streamed

# Pointers that a direction is not given.
_OF_ONE = {False: ("ADDED", "START", "POINT"), True: ("ADDED", "START")}
_OF_SEQUENCE = {False: ("POINT",), True: ("D",)}
_OF_OTHERS = {False: ("START", "POINT"), True: ("START",)}

_ON_CHIP = 5 * ["rows by columns"]  # iterate; image, residual and their last differences
_A_ROW = 4 * ["rows of f32"]  # square of a difference, best and last residual, its bound
_COUNTS = ["rows of i32", "rows of i1", "i32"]  # maps and going of each row, iterations


def programs() -> Iterator[Any]:
    """Program, constants, absent pointers by direction, what its loop carries."""
    dense = sizes.of_chain(100, 0) | {"CARRY": False}
    sequence = sizes.of_chain(20, 22) | {"CARRY": True}
    on_chip = sorted(_ON_CHIP + _A_ROW + _COUNTS)
    for name, *case in (
        ("dense", chain.solve_chain, dense, _OF_ONE, on_chip),
        ("sequence", chain.solve_chain, sequence, _OF_SEQUENCE, on_chip),
        ("low rank", low_rank.solve_low_rank, sizes.of_low_rank(4), _OF_OTHERS, on_chip),
        # Iterates, images and residuals are in memory.
        ("streamed", streamed.solve_streamed, sizes.of_streamed(8), _OF_OTHERS,
         sorted(_A_ROW + _COUNTS)),
    ):  # fmt: skip
        yield pytest.param(*case, id=name)


def lowered(program: Any, cut: dict[str, Any], absent: tuple[str, ...], how: dict[str, Any]) -> Any:
    """The parsed TTIR."""
    options = {name: cut[name] for name in ("num_warps", "enable_fp_fusion")}
    capability = how.pop("capability")
    constants = {k: v for k, v in cut.items() if k not in options} | how | dict.fromkeys(absent)
    signature = {
        name: "constexpr"
        if name in constants
        else "fp32"
        if name == "tol"
        else "*fp32"
        if name.isupper()
        else "i32"
        for name in program.arg_names
    }
    text = compiled(program, signature, constants, options, capability)
    return parse(text, program.__name__)


def kinds(loop: Operation) -> list[str]:
    """What a loop carries: by type, with the sizes left out."""
    types = loop.type.partition("(")[2].partition(")")[0].split(", ")
    names = {"f32": "rows of f32", "i32": "rows of i32", "i1": "rows of i1"}
    found = []
    for kind in types:
        if not kind.startswith("tensor<"):
            found.append(kind)
            continue
        *shape, element = kind.removeprefix("tensor<").removesuffix(">").split("x")
        found.append("rows by columns" if len(shape) == 2 else names[element])
    return sorted(found)


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("adjoint", [False, True], ids=["forward", "adjoint"])
@pytest.mark.parametrize(("program", "cut", "absent", "carried"), list(programs()))
def test_what_the_algorithm_carries_is_carried(
    program: Any,
    cut: dict[str, Any],
    absent: dict[bool, tuple[str, ...]],
    carried: list[str],
    adjoint: bool,
    capability: int,
) -> None:
    """Triton's front end drops a name from what a loop carries where it takes over a value that
    was its own at entry, and says nothing. Nor is anything carried only to be handed on."""
    how = {"PHI": "relu", "ADJOINT": adjoint, "PRECISION": "ieee", "capability": capability}
    body = lowered(program, cut, absent[adjoint], how)
    (solve,) = (operation for operation in body.walk() if operation.name == "scf.while")
    assert kinds(solve) == carried
    for loop in body.walk():
        if loop.name in ("scf.while", "scf.for"):
            inner = loop.regions[-1]
            handed_on = set(inner.operations[-1].operands) & set(inner.arguments)
            assert not handed_on, f"{loop.name} {loop.type} hands on {handed_on}"


def test_what_lies_outside_a_tensor_is_neither_read_nor_written() -> None:
    """That the programs' loads and stores are within their tensors is seen by every test that runs
    them here, if it is seen."""
    from ttir.run import OutOfBounds

    program = Launcher(chain.solve_chain)
    n, m = 12, 3
    W, D = torch.zeros(n, n), torch.zeros(1, m, n)
    constants = {"PHI": "relu", "ADJOINT": False, "CARRY": False, "PRECISION": "ieee"}

    def run(rows: int, figures: torch.Tensor) -> torch.Tensor:
        chain_ = torch.full((1, m, n), float("nan"))
        program[(1,)](
            W, 1, n, D, 0, n, None, 0, 0, None, None, 0, 0, chain_, figures,
            1e-6, 5, rows, n, 0, 1, **constants, **sizes.of_chain(n, 0),
        )  # fmt: skip
        return chain_

    assert not run(m, torch.empty(3, m)).any()
    with pytest.raises(OutOfBounds):
        run(m + 1, torch.empty(3, m + 1))
    with pytest.raises(OutOfBounds):
        run(m, torch.empty(2, m))
