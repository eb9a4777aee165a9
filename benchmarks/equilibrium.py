"""Forward and backward of one batch, against torchidl and torchdeq, on the same equilibria.

    python benchmarks/equilibrium.py [--data FOLDER] [--pictures ZIP] [--seconds S]

Each row: median milliseconds of both, taken in turns, of a forward pass and a backward pass from a
given gradient of the output, the parameters having none; how often faster, and how often with
zero_grad and cross-entropy included, which cost both alike; applications of A, forward and
backward; the largest entry of relu(AX + BU) - X that is left; the largest difference of the
outputs, to each other and to the equilibrium in float64; the largest error of the gradient of B,
relative to its largest entry, against float64.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
from cases import Case, dense_cases, load_pictures, low_rank_case, narrow_low_rank_case, slow_cases
from exact import TOL, forward_residual, gradient_error, reference
from mnist_digits import absent_message, find_raw_folder, load_digits
from peers import require
from timing import conditions, paired_medians, repeats_for
from torch import Tensor, nn

from idl import ImplicitModel
from idl_core import ImplicitFunctionWarning


@dataclass(frozen=True, eq=False)
class Contender:
    """A model with the case's weights, and what its solves of that case do."""

    name: str
    model: nn.Module
    maps: tuple[int, int]
    states: Tensor


def ours(case: Case, grad_tol: float | None = None) -> Contender:
    """The project's model; it checks or projects A at every step, as in training."""
    p, n, q, _ = case.sizes
    low_rank = case.rank is not None
    model = ImplicitModel(p, q, n, grad_tol=grad_tol, is_low_rank=low_rank, rank=case.rank)
    model.load_state_dict(case.weights)
    _step(model, case)
    solved = model.last_solution
    assert solved.forward is not None
    assert solved.adjoint is not None
    maps = (int(solved.forward.iterations.max()), int(solved.adjoint.iterations.max()))
    with torch.no_grad():
        states = model.equilibrium(case.inputs)
    return Contender("ours", model, maps, states)


def ours_stopped_as_torchidl(case: Case) -> Contender:
    """The same, the adjoint stopped at torchidl's tolerance, 3e-6 absolute, instead of relative."""
    model = ours(case).model
    _step(model, case)
    adjoint = model.last_solution.adjoint
    assert adjoint is not None
    largest = adjoint.tol / model.f.grad_tol  # incoming gradient
    return ours(case, grad_tol=TOL / largest)


def torchidl_contender(case: Case) -> Contender:
    import torchidl_model

    model = torchidl_model.build(case)
    maps = torchidl_model.count_maps(case, model)
    return Contender("torchidl", model, maps, torchidl_model.states(case))


def torchdeq_contender(case: Case) -> Contender | None:
    import torchdeq_model

    found = torchdeq_model.fastest(case)
    if found is None:
        return None
    model, choice = found
    _step(model, case)
    states = model.solve(case.inputs @ model.B.T).detach()
    name = f"{choice.f_solver} {choice.f_tol:.1e} / {choice.b_solver} {choice.b_tol:.1e}"
    return Contender(name, model, model.steps, states)


def compare(
    title: str,
    cases: Iterable[Case],
    make_peer: Callable[[Case], Contender | None],
    seconds: float,
    make_own: Callable[[Case], Contender] = ours,
) -> None:
    """Print one table."""
    print(f"\n{title}")
    print(
        f"{'case':<42} {'ours ms':>9} {'peer ms':>9} {'faster':>7} {'+ loss':>7}  {'maps ours':>9} "
        f"{'peer':>9}  {'residual':>8} {'peer':>8}  {'|ours-peer|':>11} {'|ours-f64|':>10} "
        f"{'|peer-f64|':>10}  {'grad err':>8} {'peer':>8}"
    )
    for case in cases:
        label = f"{case.name} ({', '.join(map(str, case.sizes))})"
        peer = make_peer(case)
        if peer is None:
            print(f"{label:<42} no solver of the peer reaches the tolerance")
            continue
        print(f"{label:<42} {_row(case, make_own(case), peer, seconds)}", flush=True)


def _row(case: Case, own: Contender, peer: Contender, seconds: float) -> str:
    steps = [lambda: _step(own.model, case), lambda: _step(peer.model, case)]
    repeats = repeats_for(lambda: [step() for step in steps], seconds / 2, least=3, most=1000)
    own_loss_s, peer_loss_s = paired_medians(steps, repeats)
    grad = _gradient_of_loss(own.model, case)

    def without_gradients() -> None:
        own.model.zero_grad()
        peer.model.zero_grad()

    passes = [lambda: _pass(own.model, case, grad), lambda: _pass(peer.model, case, grad)]
    own_s, peer_s = paired_medians(passes, repeats, before=without_gradients)
    with torch.no_grad():
        own_y, peer_y, exact = own.model(case.inputs), peer.model(case.inputs), reference(case)
    residuals = [forward_residual(case, side.states) for side in (own, peer)]
    differences = [
        float((a - b).abs().max()) for a, b in ((own_y, peer_y), (own_y, exact), (peer_y, exact))
    ]
    own_maps, peer_maps = ("+".join(map(str, side.maps)) for side in (own, peer))
    for side in (own, peer):
        _step(side.model, case)
    gradients = [gradient_error(case, side.model.B.grad) for side in (own, peer)]
    solver = "" if peer.name == "torchidl" else f"  {peer.name}"
    return (
        f"{own_s * 1e3:9.2f} {peer_s * 1e3:9.2f} {peer_s / own_s:6.2f}x "
        f"{peer_loss_s / own_loss_s:6.2f}x  {own_maps:>9} "
        f"{peer_maps:>9}  {residuals[0]:8.1e} {residuals[1]:8.1e}  {differences[0]:11.1e} "
        f"{differences[1]:10.1e} {differences[2]:10.1e}  "
        f"{gradients[0]:8.1e} {gradients[1]:8.1e}{solver}"
    )


def _pass(model: nn.Module, case: Case, grad: Tensor) -> None:
    """Forward and backward of one batch, for a gradient (m, q) of Ŷ."""
    model(case.inputs).backward(grad)


def _gradient_of_loss(model: nn.Module, case: Case) -> Tensor:
    with torch.no_grad():
        Y = model(case.inputs)
    Y.requires_grad_()
    (grad,) = torch.autograd.grad(nn.functional.cross_entropy(Y, case.targets), Y)
    return grad


def _step(model: nn.Module, case: Case) -> None:
    """Forward and backward of one batch and its loss, from no gradients."""
    model.zero_grad()
    nn.functional.cross_entropy(model(case.inputs), case.targets).backward()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="folder of MNIST's t10k files")
    parser.add_argument("--pictures", type=Path, help="image folder or zip of 32 x 32 pictures")
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing for each row")
    arguments = parser.parse_args()
    require("torchidl", "torchdeq")
    # Where float32 cannot reach the tolerance ours says so; the residuals in the table do too.
    warnings.filterwarnings("ignore", category=ImplicitFunctionWarning)
    folder, pictures = find_raw_folder(arguments.data), load_pictures(arguments.pictures)
    digits = load_digits(folder)[0] if folder else None
    print(conditions("torchidl", "torchdeq"))
    if digits is None:
        print(absent_message(), "Random data stand in.")
    cases = [*dense_cases(digits, pictures), *slow_cases(digits, pictures)]
    low_rank = [low_rank_case(digits), narrow_low_rank_case()]
    print("sizes are (p, n, q, m); maps are applications of A, forward + backward")
    compare(
        "Against torchidl (it stops after 300 maps, converged or not)",
        [*cases, *low_rank],
        torchidl_contender,
        arguments.seconds,
    )
    compare(
        "Against torchidl, our adjoint stopped at its own, absolute tolerance",
        cases[:4],
        torchidl_contender,
        arguments.seconds,
        ours_stopped_as_torchidl,
    )
    compare(
        "Against torchdeq, its fastest solvers (forward tol / backward tol, 2-norms)",
        cases,
        torchdeq_contender,
        arguments.seconds,
    )


if __name__ == "__main__":
    main()
