"""The problems of `sim_family.py`: one thing changed each, and others made in other ways."""

from __future__ import annotations

import io
import itertools
import pickle
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from mnist_digits import load_digits
from torch import Tensor, nn

from idl.sim import SIM, rescaled
from idl_core.sim.scaling import Scalers

Array = np.ndarray[Any, Any]
States = dict[str, Array]
T = TypeVar("T")


@dataclass(frozen=True)
class Teacher:
    """A network and how it is trained, on MNIST digits unless said otherwise.

    Attributes:
        inputs: "unit" pixels in [0, 1]; "raw" 0 to 255; "standard" each pixel to mean 0 and
            variance 1; "centred" mean 0; "pca" the 40 leading components; "twice" all pixels two
            times; "cifar" and "cifar unit" gray CIFAR pictures; "digits" scikit-learn's 8 x 8.
    """

    widths: tuple[int, ...] = (64, 32, 16)
    inputs: str = "unit"
    activation: str = "relu"
    bias: bool = False
    constant_input: bool = False
    epochs: int = 15


@dataclass(frozen=True)
class Sibling:
    """One problem."""

    name: str
    teacher: Teacher | None = field(default_factory=Teacher)
    samples: int = 2000
    strength: float = 1e-6
    kappa: float = 0.99
    l1_ratio: float = 0.5
    elastic_net: bool = False
    rescale: bool = False
    standardize: bool = False
    skip_layers: int | None = None
    made: Callable[[np.random.Generator], States] | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def penalties(self) -> tuple[float, float]:
        """Weights of ‖w‖₁ and of ½‖w‖²."""
        if not self.elastic_net:
            return self.strength, 0.0
        return self.strength * self.l1_ratio, self.strength * (1 - self.l1_ratio)


class Source:
    """Makes the states of problems, and keeps what is slow to make in a folder."""

    def __init__(self, data: Path, cache: Path | None) -> None:
        self.data, self.cache = data, cache
        self.teachers: dict[Teacher, tuple[nn.Sequential, Tensor]] = {}

    def kept(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, from the folder where it was made before."""
        if self.cache is None:
            return make()
        self.cache.mkdir(parents=True, exist_ok=True)
        path = self.cache / f"{name.replace('/', '_').replace(' ', '-')}.pkl"
        if path.exists():
            value: T = pickle.loads(path.read_bytes())
            return value
        value = make()
        path.write_bytes(pickle.dumps(value))
        return value

    def states(self, sibling: Sibling) -> States:
        """X, U, Z, Y of a problem."""
        return self.kept(f"states-{sibling.name}", lambda: self._states(sibling))

    def _states(self, sibling: Sibling) -> States:
        if sibling.made is not None:
            return sibling.made(np.random.default_rng(0))
        assert sibling.teacher is not None
        if sibling.teacher not in self.teachers:
            self.teachers[sibling.teacher] = self._trained(sibling.teacher)
        network, x = self.teachers[sibling.teacher]
        x = x[: sibling.samples]
        model: nn.Module = network
        if sibling.rescale:
            model = rescaled(network, sibling.kappa, x[:64])
        sim = SIM(activation_fn=_ACTIVATIONS[sibling.teacher.activation])
        sim.skip_layers = sibling.skip_layers
        states = sim.get_states(model, [x])
        if sibling.standardize:
            states = Scalers.fit(states).apply(states)
        return states

    def _trained(self, teacher: Teacher) -> tuple[nn.Sequential, Tensor]:
        x, y = self._pictures(teacher.inputs)
        if teacher.constant_input:
            x = torch.cat([x, torch.ones(len(x), 1)], 1)
        torch.manual_seed(0)
        layers: list[nn.Module] = []
        for narrow, wide in itertools.pairwise((x.shape[1], *teacher.widths, 10)):
            activation = type(_ACTIVATIONS[teacher.activation])()
            layers += [nn.Linear(narrow, wide, bias=teacher.bias), activation]
        network = nn.Sequential(*layers[:-1])
        scale = x.abs().max().clamp(min=1.0) if "raw" in teacher.inputs else torch.tensor(1.0)
        with torch.no_grad():
            network[0].weight /= scale  # type: ignore[operator]
        rate = 1e-3 / float(scale) ** 0.5
        optimizer = torch.optim.Adam(network.parameters(), rate)
        for _ in range(teacher.epochs):
            for batch in torch.randperm(len(x)).split(64):
                optimizer.zero_grad()
                nn.functional.cross_entropy(network(x[batch]), y[batch]).backward()
                optimizer.step()
        return network, x

    def _pictures(self, inputs: str) -> tuple[Tensor, Tensor]:
        if inputs.startswith("cifar"):
            x, y = self._cifar()
            return (x / 255 if "unit" in inputs else x), y
        if inputs == "digits":
            from sklearn.datasets import load_digits as small

            pictures = small()
            return torch.from_numpy(pictures.data).float() / 16, torch.from_numpy(pictures.target)
        train, _ = load_digits(self.data / "MNIST" / "raw")
        x, y = train.x.flatten(1).float(), train.y
        unit, seen = x / 255, x.std(0) > 0
        if inputs == "standard":
            return torch.where(seen, (x - x.mean(0)) / x.std(0).clamp(min=1e-6), 0.0), y
        if inputs == "normalised":
            return (unit - unit.mean()) / unit.std(), y
        if inputs == "centred":
            return unit - unit.mean(0), y
        if inputs == "pca":
            centred = unit - unit.mean(0)
            return centred @ torch.linalg.svd(centred, full_matrices=False).Vh[:40].T, y
        if inputs == "twice":
            return torch.cat([unit, unit], 1), y
        return (x if inputs == "raw" else unit), y

    def _cifar(self) -> tuple[Tensor, Tensor]:
        from PIL import Image

        pictures, labels = [], []
        with zipfile.ZipFile(self.data / "cifar10_jpg_12k.zip") as archive:
            names = sorted(n for n in archive.namelist() if "/train/" in n and n.endswith(".jpg"))
            classes = sorted({n.split("/")[2] for n in names})
            for name in names:
                picture = Image.open(io.BytesIO(archive.read(name))).convert("L")
                pictures.append(np.asarray(picture, np.float32).ravel())
                labels.append(classes.index(name.split("/")[2]))
        order = np.random.default_rng(0).permutation(len(names))
        x = torch.from_numpy(np.stack(pictures)[order])
        return x, torch.from_numpy(np.array(labels)[order])


_ACTIVATIONS = {"relu": nn.ReLU(), "tanh": nn.Tanh(), "leaky": nn.LeakyReLU()}


# --- problems made in other ways than from pictures ---


def _two_layers(
    rng: np.random.Generator, U: Array, widths: Sequence[int] = (24, 16), q: int = 4
) -> States:
    """States of a random network on inputs U (p, m)."""
    Z, x = [], U
    for width in widths:
        z = rng.normal(size=(width, len(x))) @ x / np.sqrt(len(x))
        Z.append(z)
        x = np.maximum(z, 0)
    Y = rng.normal(size=(q, len(x))) @ x
    whole = np.concatenate(Z[::-1])
    return {"X": np.maximum(whole, 0), "U": U, "Z": whole, "Y": Y}


def _normal(rng: np.random.Generator, p: int = 200, m: int = 500) -> States:
    return _two_layers(rng, rng.normal(size=(p, m)))


def _noisy(rng: np.random.Generator) -> States:
    states = _normal(rng)
    for key in ("Z", "Y"):
        states[key] = states[key] + 0.3 * rng.normal(size=states[key].shape)
    return states


def _sparse(rng: np.random.Generator) -> States:
    """Targets that a few columns make, as the lasso is usually tried on."""
    U, X = rng.normal(size=(400, 300)), np.abs(rng.normal(size=(30, 300)))
    truth = rng.normal(size=(34, 430)) * (rng.random((34, 430)) < 0.02)
    both = truth @ np.concatenate([X, U]) + 0.05 * rng.normal(size=(34, 300))
    return {"X": X, "U": U, "Z": both[:30], "Y": both[30:]}


def _unlike_columns(rng: np.random.Generator) -> States:
    U = rng.normal(size=(150, 600)) * 10.0 ** rng.uniform(-4, 4, size=(150, 1))
    return _two_layers(rng, U)


def _low_rank(rng: np.random.Generator, noise: float = 1e-9) -> States:
    U = rng.normal(size=(300, 20)) @ rng.normal(size=(20, 800))
    return _two_layers(rng, U + noise * rng.normal(size=U.shape))


def _near_copies(rng: np.random.Generator) -> States:
    U = rng.normal(size=(80, 600))
    return _two_layers(rng, np.concatenate([U, U + 1e-7 * rng.normal(size=U.shape)]))


def _copies_across(rng: np.random.Generator) -> States:
    """Inputs that are states too, some scaled: copies within a, within b and across."""
    states = _two_layers(rng, rng.normal(size=(40, 400)))
    X, U = states["X"], states["U"]
    states["X"][1], states["Z"][1] = X[0], states["Z"][0]
    states["U"] = np.concatenate([U, X[:10], -2 * U[:10], 0.5 * X[10:15]])
    return states


def _delays(rng: np.random.Generator) -> States:
    """Windows of a smooth series: columns that are nearly collinear."""
    t = np.arange(1400)
    series = np.sin(t / 17) + 0.5 * np.sin(t / 7.3) + 0.01 * rng.normal(size=t.size)
    series = np.convolve(series, np.ones(9) / 9, "same")
    U = np.stack([series[i : i + 1200] for i in range(150)])
    return _two_layers(rng, U)


def _one_hot(rng: np.random.Generator) -> States:
    """Binary columns of which each sample has a few: text windows."""
    letters = rng.choice(40, size=(1500, 8), p=(w := 1 / np.arange(1, 41)) / w.sum())
    return _two_layers(rng, np.eye(40)[letters].reshape(1500, -1).T)


def _polynomials(rng: np.random.Generator) -> States:
    t = rng.uniform(0, 1, size=1000)
    return _two_layers(rng, np.stack([t**k for k in range(40)]))


def _many_samples(rng: np.random.Generator) -> States:
    return _two_layers(rng, rng.normal(size=(100, 100_000)))


def _few(samples: int) -> Callable[[np.random.Generator], States]:
    return lambda rng: _two_layers(rng, rng.normal(size=(300, samples)))


def _heavy_tails(rng: np.random.Generator) -> States:
    return _two_layers(rng, rng.standard_t(2, size=(150, 700)))


def _quiet_units(rng: np.random.Generator) -> States:
    """Units that hardly ever fire, and inputs that are rarely lit."""
    U = rng.normal(size=(120, 800)) * (rng.random((120, 800)) < 0.01)
    states = _two_layers(rng, U)
    states["Z"][:8] -= 2.5
    states["X"] = np.maximum(states["Z"], 0)
    return states


def _mnist() -> list[Sibling]:
    base, five = Teacher(), Teacher(epochs=5)
    deep = Teacher(widths=(64,) * 6)
    return [
        Sibling("base"),
        Sibling("kappa .5", kappa=0.5),
        Sibling("kappa .9", kappa=0.9),
        Sibling("lambda 1e-8", strength=1e-8),
        Sibling("lambda 1e-4", strength=1e-4),
        Sibling("lambda 1e-2", strength=1e-2),
        Sibling("lambda 1", strength=1.0),
        Sibling("lambda 100 m 4000", strength=100.0, samples=4000),
        Sibling("lambda 1e-4 rescaled m 4000", strength=1e-4, samples=4000, rescale=True),
        Sibling("lambda 1e-2 m 4000", strength=1e-2, samples=4000),
        Sibling("lambda 0", strength=0.0),
        Sibling("elastic net 1e-4", strength=1e-4, elastic_net=True),
        Sibling("elastic net 1e-2 ratio 0", strength=1e-2, elastic_net=True, l1_ratio=0.0),
        Sibling("elastic net 1e-6", strength=1e-6, elastic_net=True),
        Sibling("tanh", Teacher(activation="tanh")),
        Sibling("leaky", Teacher(activation="leaky")),
        Sibling("widths 8", Teacher(widths=(8, 8, 8))),
        Sibling("widths 512", Teacher(widths=(512,))),
        Sibling("depth 1", Teacher(widths=(64,))),
        Sibling("m 900", samples=900),
        Sibling("m 5000", samples=5000),
        Sibling("m 300", samples=300),
        Sibling("m 50", samples=50),
        Sibling("centred", Teacher(inputs="centred")),
        Sibling("normalised inputs", Teacher(inputs="normalised")),
        Sibling("skip_layers", skip_layers=2),
        Sibling("standardize", standardize=True),
        Sibling("five epochs", five),
        Sibling("standardised inputs", Teacher(inputs="standard")),
        Sibling("depth 6", deep),
        Sibling("bias", Teacher(bias=True)),
        Sibling("bias constant input", Teacher(bias=True, constant_input=True)),
        Sibling("rescaled", base, rescale=True),
        Sibling("rescaled lambda .1", base, rescale=True, strength=0.1),
        Sibling("rescaled lambda 10", base, rescale=True, strength=10.0),
        Sibling("duplicated columns", Teacher(inputs="twice")),
        Sibling("pca 40", Teacher(inputs="pca")),
        Sibling("raw pixels", Teacher(inputs="raw")),
        Sibling("cifar raw", Teacher(inputs="cifar raw")),
        Sibling("cifar raw lambda 1e-2", Teacher(inputs="cifar raw"), strength=1e-2),
        Sibling("cifar unit", Teacher(inputs="cifar unit")),
        Sibling("digits", Teacher(inputs="digits"), samples=1500),
        Sibling("float32", options={"dtype": torch.float32}),
    ]


def _others() -> list[Sibling]:
    def made(name: str, make: Any, strength: float, **options: Any) -> Sibling:
        return Sibling(f"made: {name}", None, strength=strength, made=make, **options)

    return [
        made("normal", _normal, 1e-3),
        made("noisy", _noisy, 1.0),
        made("noisy, no penalty", _noisy, 0.0),
        made("sparse truth", _sparse, 0.5),
        made("unlike columns", _unlike_columns, 1e-4),
        made("unlike columns, elastic net", _unlike_columns, 1e-2, elastic_net=True),
        made("low rank", _low_rank, 1e-4),
        # Of noise of 1e-9 answers without a penalty are so large that float64 cannot evaluate them.
        made("low rank, no penalty", lambda rng: _low_rank(rng, 1e-5), 0.0),
        made("near copies", _near_copies, 1e-5),
        made("copies across", _copies_across, 1e-3),
        made("delays", _delays, 1e-5),
        made("delays, no penalty", _delays, 0.0),
        made("one-hot", _one_hot, 1e-2),
        made("polynomials", _polynomials, 1e-6),
        made("m 100,000", _many_samples, 1e-2),
        made("m 1", _few(1), 1e-3),
        made("m 7", _few(7), 1e-3),
        made("heavy tails", _heavy_tails, 1e-2),
        made("quiet units", _quiet_units, 1e-4),
        made("penalty above all", _normal, 1e5),
        made("kappa 0", _normal, 1e-3, kappa=0.0),
    ]


SIBLINGS = [*_mnist(), *_others()]
