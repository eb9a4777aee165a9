"""‖A‖∞ ≤ κ holds for what is returned, in exact arithmetic, whatever the number format and size."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from idl_core import IDLHead, ImplicitAttention, ImplicitModel, ImplicitRNN
from idl_core.functions import ImplicitFunctionInf
from idl_core.models.implicit_attention import KAPPA
from idl_core.wellposed import PROJECTIONS, low_rank_product, norm_inf

HALVES = [torch.bfloat16, torch.float16]
every_projection = pytest.mark.parametrize("name", PROJECTIONS)


def norm(A: Tensor) -> float:
    """‖A‖∞ of what A holds; sums of float64 are exact enough to see a unit of float32."""
    return float(A.detach().double().abs().sum(-1).max())


@every_projection
@pytest.mark.parametrize("kappa", [0.0, 0.5, 0.9, 0.99, 0.999, 0.9999, 1.0])
@pytest.mark.parametrize("dtype", [*HALVES, torch.float32, torch.float64])
def test_every_projection_in_every_format(name: str, dtype: torch.dtype, kappa: float) -> None:
    for n in (1, 3, 30, 300):
        for size in (0.01, 1.0, 1e3):
            torch.manual_seed(n)
            A = (size * torch.randn(n, n) / n).to(dtype)
            projected = PROJECTIONS[name](A, kappa)
            assert projected.dtype == dtype
            assert norm(projected) <= kappa
            if kappa and norm(A) > kappa:
                assert norm(projected) >= 0.98 * kappa  # nothing is given away
            assert torch.equal(PROJECTIONS[name](projected, kappa), projected)


@every_projection
@pytest.mark.parametrize("dtype", HALVES)
def test_rows_that_sum_up_to_kappa_in_the_coarse_format(name: str, dtype: torch.dtype) -> None:
    """Many equal entries: a sum in the half precision itself stalls long before."""
    for n in (100, 257, 600):
        A = torch.full((3, n), 1.0 / n).to(dtype)
        A[1] = torch.nextafter(A[1].float(), torch.tensor(1.0)).to(dtype) * 1.01
        assert norm(PROJECTIONS[name](A, 0.999)) <= 0.999
    assert float(norm_inf(torch.full((1, 600), 1 / 512).to(dtype))) == pytest.approx(600 / 512)


@every_projection
@pytest.mark.parametrize("dtype", HALVES)
def test_models_in_half_precision(name: str, dtype: torch.dtype) -> None:
    for options in ({}, {"is_low_rank": True, "rank": 5}):
        for kappa in (0.9, 0.99, 0.999):
            torch.manual_seed(0)
            model = ImplicitModel(4, 2, 40, kappa=kappa, projection=name, **options)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(50)
            model = model.to(dtype)
            assert norm(model.effective_A()) <= kappa
            if options:
                L, R = model.f.constrain_low_rank(model.L, model.R)
                assert norm(L.double() @ R.double().T) <= kappa
            size = torch.linalg.eigvals(model.effective_A().detach().double()).abs().max()
            assert float(size) <= kappa


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("rank", [None, 3])
def test_attention_in_half_precision(dtype: torch.dtype, rank: int | None) -> None:
    torch.manual_seed(0)
    options = {} if rank is None else {"is_low_rank": True, "rank": rank}
    head, fused = IDLHead(4, 8, 5, **options), ImplicitAttention(8, 2, 5, **options)
    for module, equilibrium in ((head, head), (fused, fused.equilibrium)):
        with torch.no_grad():
            for parameter in module.parameters():
                parameter.mul_(50)
        module.to(dtype)
        assert norm(equilibrium.effective_A()) <= KAPPA


def test_the_cell_of_a_sequence_in_half_precision() -> None:
    torch.manual_seed(0)
    model = ImplicitRNN(2, 1, 30, 3, kappa=0.999)
    with torch.no_grad():
        model.recurrent.layer.A.mul_(50)
    assert norm(model.bfloat16().recurrent.layer.effective_A()) <= 0.999


def test_products_are_rounded_inwards() -> None:
    for dtype in HALVES:
        torch.manual_seed(0)
        L = PROJECTIONS["ball"](torch.randn(2 * 50, 7), 0.999).view(2, 50, 7)
        R = PROJECTIONS["ball"](torch.randn(2 * 7, 40), 1.0).view(2, 7, 40).mT
        halves = PROJECTIONS["row"](L.flatten(0, 1).to(dtype), 0.999).view(2, 50, 7)
        right = PROJECTIONS["row"](R.mT.flatten(0, 1).to(dtype), 1.0).view(2, 7, 40).mT
        product = low_rank_product(halves, right)
        assert product.dtype == dtype
        assert norm(product) <= 0.999
        exact = halves.double() @ right.double().mT
        assert float((product.double() - exact).abs().max()) < 0.01


@every_projection
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_sums_that_overflow(name: str, dtype: torch.dtype) -> None:
    """Finite entries whose sum is infinite: not a matrix of zeros, but what float64 would give."""
    largest = torch.finfo(dtype).max
    A = torch.tensor([[0.9, -0.9, 0.45], [1e-3, 0.0, 1e-3]], dtype=torch.float64)
    huge = (A * largest).to(dtype)
    huge[1] = torch.tensor([0.1, 0.2, -0.1])
    projected = PROJECTIONS[name](huge, 0.9)
    assert projected.isfinite().all()
    assert norm(projected) == pytest.approx(0.9, rel=0.01)
    if name != "global":
        assert torch.equal(projected[1], huge[1])
    truth = torch.tensor([0.36, -0.36, 0.18] if name != "ball" else [0.45, -0.45, 0.0])
    assert torch.allclose(projected[0].float(), truth, rtol=0.01)
    for many in (torch.full((2, 500), largest, dtype=dtype),):
        assert norm(PROJECTIONS[name](many, 0.9)) == pytest.approx(0.9, rel=0.02)
    A = huge.clone().requires_grad_()
    PROJECTIONS[name](A, 0.9).sum().backward()
    assert A.grad.isfinite().all()


def test_a_model_with_sums_that_overflow() -> None:
    model = ImplicitModel(2, 1, 3, kernel="torch")
    with torch.no_grad():
        model.A.fill_(3e38)
    assert norm(model.effective_A()) == pytest.approx(0.99, rel=1e-5)


@every_projection
def test_gradients_in_half_precision(name: str) -> None:
    """Rounding inwards passes the gradient on: near that of float64."""
    torch.manual_seed(0)
    A, weight = torch.randn(6, 5), torch.randn(6, 5)
    gradients = []
    for dtype in (torch.float64, torch.bfloat16):
        a = A.bfloat16().to(dtype).requires_grad_()
        (PROJECTIONS[name](a, 0.9) * weight.to(dtype)).sum().backward()
        gradients.append(a.grad.double())
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 0.03


@every_projection
def test_under_transforms_and_without_numbers(name: str) -> None:
    """Where no number may be looked at the projections are the same functions."""
    torch.manual_seed(0)
    A = torch.randn(2, 4, 5, dtype=torch.float64) * torch.tensor([0.05, 3.0])[:, None, None]
    project = PROJECTIONS[name]
    expected = torch.stack([project(a, 0.9) for a in A])
    assert torch.allclose(torch.func.vmap(lambda a: project(a, 0.9))(A), expected, atol=1e-12)
    (plain,) = torch.autograd.grad(project(a := A[1].clone().requires_grad_(), 0.9).pow(3).sum(), a)
    by_func = torch.func.grad(lambda a: project(a, 0.9).pow(3).sum())(A[1])
    assert torch.allclose(by_func, plain, atol=1e-12)
    _, along = torch.func.jvp(lambda a: project(a, 0.9).pow(3).sum(), (A[1],), (A[0],))
    assert float(along) == pytest.approx(float((plain * A[0]).sum()))
    for shape in ((3, 4), (0, 4), (3, 0)):
        assert project(torch.empty(shape, device="meta"), 0.9).shape == shape


def test_radius_of_activations_that_stretch() -> None:
    f = ImplicitFunctionInf(activation="gelu", kappa=0.999)
    A = f.constrain(torch.randn(50, 50).bfloat16())
    assert norm(A) * f.lipschitz <= 0.999
