"""What the first documents of the project print, as it is printed there."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F
from torch import nn, optim

from idl import ImplicitFunctionInf, ImplicitFunctionTriu, ImplicitModel


@pytest.mark.parametrize("f", [ImplicitFunctionInf, ImplicitFunctionTriu])
def test_sizes_in_the_order_hidden_input_output(f: type) -> None:
    n, p, q = 30, 48, 10
    torch.manual_seed(0)
    model = ImplicitModel(n, p, q, f=f, no_D=False)
    opt = optim.Adam(ImplicitModel.parameters(model), lr=5e-3)
    xs, ys = torch.randn(64, 3, 4, 4), torch.randint(0, q, (64,))
    losses = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        for _ in range(15):
            loss = F.cross_entropy(model(xs), ys)
            loss.backward()
            opt.step()
            opt.zero_grad()
            losses.append(loss.item())
    assert len(said) == 1
    assert "hidden_dim=30, input_dim=48, output_dim=10" in str(said[0].message)
    assert losses[-1] < 0.7 * losses[0]
    shapes = {name: tuple(value.shape) for name, value in model.named_parameters()}
    assert shapes == {"A": (n, n), "B": (n, p), "C": (q, n), "D": (q, p)}
    assert (model.hidden_dim, model.input_dim, model.output_dim) == (n, p, q)
    # Drawn as one whose sizes were given by name.
    assert float(model.A.detach().abs().sum(1).max()) < 2.0


@pytest.mark.parametrize(
    "options", [{"bias": True}, {"no_D": True}, {"is_low_rank": True, "rank": 2}]
)
def test_other_layouts_in_that_order(options: dict) -> None:
    model = ImplicitModel(9, 20, 3, **options).double()
    with pytest.warns(UserWarning, match="input_dim=20"):
        Y = model(torch.randn(5, 20).double())
    assert Y.shape == (5, 3)
    assert Y.dtype == torch.float64
    by_name = ImplicitModel(input_dim=20, output_dim=3, hidden_dim=9, **options)
    by_name.load_state_dict(model.state_dict())
    twin = copy.deepcopy(model)
    assert torch.equal(twin(torch.ones(2, 20).double()), model(torch.ones(2, 20).double()))


def test_where_the_order_is_not_in_doubt_it_is_an_error() -> None:
    """By name; features that neither order has; weights that were loaded, set or trained."""
    U = torch.randn(2, 20)
    with pytest.raises(ValueError, match=r"have 20 features.*takes 9$"):
        ImplicitModel(input_dim=9, output_dim=20, hidden_dim=3)(U)
    with pytest.raises(ValueError, match=r"input_dim, output_dim, hidden_dim.*hidden, input"):
        ImplicitModel(9, 7, 3)(U)
    trained = ImplicitModel(9, 20, 3)
    trained(torch.randn(2, 9)).sum().backward()
    optim.SGD(trained.parameters(), 0.1).step()
    loaded, drawn = ImplicitModel(9, 20, 3), ImplicitModel(9, 20, 3)
    loaded.load_state_dict(trained.state_dict())
    nn.init.normal_(drawn.B)
    for model in (trained, loaded, drawn, ImplicitModel(9, 20, 3, is_low_rank=True, rank=3)):
        kept = copy.deepcopy(model.state_dict())
        if model.is_low_rank:
            with pytest.warns(UserWarning, match="sizes are taken"):
                model(U)
            continue
        with pytest.raises(ValueError, match="hidden, input, output") as refused:
            model(U)
        assert "\n" not in str(refused.value)
        for name, value in model.state_dict().items():
            assert torch.equal(value, kept[name])


def test_the_usual_order_is_taken_where_both_fit() -> None:
    model = ImplicitModel(6, 6, 3)
    assert model(torch.randn(2, 6)).shape == (2, 6)
    assert model.hidden_dim == 3
    with pytest.raises(ValueError, match="features"):
        model(torch.randn(2, 3))


@pytest.mark.parametrize("made", ["made", "copied", "unpickled", "float64", "loaded", "trained"])
@pytest.mark.parametrize("no_D", [False, True])
def test_the_spy_plot(made: str, no_D: bool) -> None:
    model = ImplicitModel(input_dim=8, output_dim=3, hidden_dim=5, no_D=no_D)
    if made == "copied":
        model = copy.deepcopy(model)
    elif made == "unpickled":
        model = pickle.loads(pickle.dumps(model))
    elif made == "float64":
        model = model.double()
    elif made == "loaded":
        model.load_state_dict(ImplicitModel(8, 3, 5, no_D=no_D).state_dict())
    elif made == "trained":
        opt = optim.Adam(model.parameters())
        model(torch.randn(2, 8)).sum().backward()
        opt.step()
    M = sp.bmat([[model.C, model.D], [model.A, model.B]])
    assert M.shape == (8, 13)
    rows = [torch.cat((model.A, model.B), 1)]
    top = model.C if no_D else torch.cat((model.C, model.D), 1)
    dense = M.toarray()
    assert np.array_equal(dense[3:], rows[0].detach().numpy())
    assert np.array_equal(dense[:3, : top.shape[1]], top.detach().numpy())


def test_numpy_reads_parameters_and_they_stay_parameters(tmp_path) -> None:
    model = ImplicitModel(4, 2, 3)
    assert np.array_equal(np.asarray(model.A), model.A.detach().numpy())
    assert np.asarray(model.A, dtype=np.float64).dtype == np.float64
    assert np.asarray(model.bfloat16().B).dtype == np.float32
    assert type(model.A) is nn.Parameter
    torch.save({"A": model.A, "all": list(model.parameters())}, tmp_path / "some.pt")
    loaded = torch.load(tmp_path / "some.pt", weights_only=True)
    assert torch.equal(loaded["A"], model.A)
    assert type(copy.deepcopy(model.A)) is nn.Parameter
