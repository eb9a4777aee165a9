"""Where states come from: hooks, files, scaling."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, SubsetRandomSampler, TensorDataset

from idl.sim import SIM, NoActivations
from idl.sim.solvers import ADMMSolver
from idl_core.sim import memory
from idl_core.sim.memory import NotEnoughMemory
from idl_core.sim.scaling import Scalers
from idl_core.sim.state_files import load_states, save_states
from idl_core.sim.states import Layer, activation_modules


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(6, 5, bias=False),
        nn.ReLU(),
        nn.Linear(5, 4, bias=False),
        nn.ReLU(),
        nn.Linear(4, 3),
    )


def loader(m: int = 20, p: int = 6) -> DataLoader[tuple[Tensor, Tensor]]:
    torch.manual_seed(1)
    return DataLoader(TensorDataset(torch.randn(m, p), torch.zeros(m).long()), batch_size=8)


def test_states_are_those_of_the_network_deepest_first() -> None:
    model, data = network(), loader()
    sim = SIM()
    states = sim.get_states(model, data)
    inputs = data.dataset.tensors[0]  # type: ignore[attr-defined]
    z1 = model[0](inputs)
    z2 = model[2](F.relu(z1))
    expected = torch.cat([z2, z1], 1).detach().numpy().T
    np.testing.assert_allclose(states["Z"], expected, atol=1e-6)
    np.testing.assert_allclose(states["X"], np.maximum(expected, 0), atol=1e-6)
    np.testing.assert_allclose(states["U"], inputs.numpy().T)
    np.testing.assert_allclose(states["Y"], model(inputs).detach().numpy().T, atol=1e-6)
    assert sim.layers == [Layer("3", 0, 4), Layer("1", 4, 9)]


def test_the_network_is_left_as_it_was() -> None:
    model = network().train()
    SIM().get_states(model, loader())
    assert model.training
    assert all(p.requires_grad for p in model.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_a_frozen_layer_stays_frozen() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 2)).train()
    model[1].eval()
    SIM().get_states(model, loader())
    assert [m.training for m in model] == [True, False, True, True]


def test_inputs_are_recorded_as_they_came() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 2))
    inputs = torch.randn(8, 6)
    given = inputs.clone()
    np.testing.assert_array_equal(SIM().get_states(model, [inputs])["U"].T, given.numpy())


def test_activations_in_place_keep_their_pre_activations() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.ReLU(inplace=True), nn.Linear(5, 2))
    states = SIM().get_states(model, loader())
    assert (states["Z"] < 0).any()


def test_a_network_of_half_precision_gives_states() -> None:
    model = network().bfloat16()
    inputs = loader().dataset.tensors[0].bfloat16()  # type: ignore[attr-defined]
    states = SIM().get_states(model, [inputs])
    np.testing.assert_array_equal(states["Y"].T, model(inputs).detach().float().numpy())


def test_one_module_called_twice_gives_two_layers() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 5), nn.Linear(5, 4)
            self.relu = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            return self.relu(self.second(self.relu(self.first(x))))

    sim = SIM()
    assert sim.get_states(Shared(), loader())["X"].shape == (9, 20)
    assert [layer.name for layer in sim.layers] == ["relu", "relu"]


class Functional(nn.Module):
    """Calls its activation as a function."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.first(x))


def test_a_functional_activation_is_an_error_that_says_so() -> None:
    with pytest.raises(NoActivations, match="calls relu as a function"):
        SIM().get_states(Functional(), loader())


def test_no_activation_is_an_error() -> None:
    with pytest.raises(NoActivations, match="no activation module"):
        SIM().get_states(nn.Linear(6, 3), loader())


def test_an_activation_that_is_not_called_is_an_error() -> None:
    model = Functional()
    model.unused = nn.ReLU()
    with pytest.raises(NoActivations, match="calls none"):
        SIM().get_states(model, loader())


def test_another_activation_than_the_network_has_is_an_error() -> None:
    with pytest.raises(ValueError, match="is not tanh"):
        SIM(activation_fn=torch.tanh).get_states(network(), loader())


@pytest.mark.parametrize("half", [False, True])
def test_another_slope_shows_however_small_the_states(half: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.LeakyReLU(0.01), nn.Linear(5, 2))
    inputs = torch.randn(20, 6)
    with torch.no_grad():
        model[0].weight.mul_(1e-3)
        model[0].bias.zero_()
    if half:
        model, inputs = model.bfloat16(), inputs.bfloat16()
    with pytest.raises(ValueError, match="is not relu"):
        SIM("relu").get_states(model, [inputs])
    SIM("leaky_relu").get_states(model, [inputs])


def test_states_of_a_file_are_checked_too(tmp_path) -> None:  # type: ignore[no-untyped-def]
    states = SIM().get_states(network(), loader())
    save_states(tmp_path / "s.npz", states, [])
    with pytest.raises(ValueError, match="is not tanh"):
        SIM("tanh").train(ADMMSolver(), states_data_path=tmp_path / "s.npz")


def test_skip_layers_takes_the_last_activation_of_each_block() -> None:
    def block() -> nn.Sequential:
        return nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU())

    model = nn.Sequential(block(), block(), nn.Linear(6, 2))
    assert list(activation_modules(model, None).values()) == ["0.1", "0.3", "1.1", "1.3"]
    # Of a module with more than two children each child is a block.
    assert list(activation_modules(model, 2).values()) == ["0.3", "1.3"]
    # With at most three it is entered; its blocks have four, each a block of one activation.
    assert list(activation_modules(model, 3).values()) == ["0.1", "0.3", "1.1", "1.3"]
    states = SIM(skip_layers=2).get_states(model, loader())
    assert states["X"].shape == (12, 20)


@pytest.mark.parametrize("name", ["states.npz", "states.safetensors", "states"])
def test_states_go_to_disk_and_back(name: str, tmp_path) -> None:  # type: ignore[no-untyped-def]
    sim = SIM().train(ADMMSolver(), network(), loader(), save_states_path=tmp_path / name)
    again = SIM().train(ADMMSolver(), states_data_path=tmp_path / name)
    assert again.layers == sim.layers
    for key, weight in sim.weights.items():
        assert weight is not None
        assert torch.equal(weight, again.weights[key])  # type: ignore[arg-type]
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_a_pickle_is_not_read(tmp_path) -> None:  # type: ignore[no-untyped-def]
    np.save(tmp_path / "states.npy", {"X": 1}, allow_pickle=True)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="could run code"):
        load_states(tmp_path / "states.npy")


def test_a_file_of_something_else_is_named(tmp_path) -> None:  # type: ignore[no-untyped-def]
    np.savez(tmp_path / "other.npz", X=np.ones(2))
    with pytest.raises(ValueError, match="has no U, Z, Y"):
        load_states(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError, match="no states file"):
        load_states(tmp_path / "absent.npz")


def test_what_was_there_before_survives_a_failed_write(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "s.npz").write_text("mine")
    with pytest.raises(KeyError):
        save_states(tmp_path / "s.npz", {"X": np.ones((1, 1))}, [])
    assert (tmp_path / "s.npz").read_text() == "mine"


def test_scaling_keeps_the_equilibrium() -> None:
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(4, 30)) * np.array([[0.1], [1], [10], [0]])
    states = {"X": np.maximum(Z, 0), "Z": Z, "U": rng.normal(size=(3, 30)), "Y": Z[:2] * 5}
    scaled = Scalers.fit(states).apply(states)
    np.testing.assert_allclose(scaled["X"], np.maximum(scaled["Z"], 0))
    np.testing.assert_allclose((scaled["U"] ** 2).mean(1), 1)
    np.testing.assert_allclose((scaled["X"][:3] ** 2).mean(1), 1)


def test_too_little_memory_is_told_before_it_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available_bytes", lambda device: 1000)
    with pytest.raises(NotEnoughMemory, match="use fewer samples, or skip_layers"):
        SIM().get_states(network(), loader())
    states = [np.ones((3, 5)), np.ones((4, 5)), np.ones((3, 5)), np.ones((2, 5))]
    with pytest.raises(NotEnoughMemory, match="use fewer samples"):
        ADMMSolver().solve(*states, {"kappa": 0.9})


def test_memory_is_asked_for_what_the_loader_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    data = TensorDataset(torch.randn(600, 6), torch.zeros(600))
    some = DataLoader(data, batch_size=8, sampler=SubsetRandomSampler(range(20)))
    batches = DataLoader(data, batch_sampler=[[1, 2, 3], [4, 5, 6]])
    needed = memory.states_bytes(9, 6, 3, 20, 4)
    monkeypatch.setattr(memory, "available_bytes", lambda device: needed)
    for given in (some, batches, [torch.randn(20, 6)], (torch.randn(5, 6) for _ in range(9))):
        SIM().get_states(network(), given)
    with pytest.raises(NotEnoughMemory, match="of 21 samples"):
        SIM().get_states(network(), [torch.randn(7, 6)] * 3)


def test_an_empty_loader_is_an_error() -> None:
    with pytest.raises(ValueError, match="no batches"):
        SIM().get_states(network(), [])
    with pytest.raises(ValueError, match="states_data_path"):
        SIM().train(ADMMSolver(), network())
