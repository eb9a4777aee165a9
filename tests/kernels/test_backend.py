"""Which kernel solves, and what is said where the one that was asked for cannot."""

from __future__ import annotations

import ast
import copy
import importlib.machinery
import importlib.metadata
import importlib.util
import pickle
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from idl_core import Broyden, ImplicitFunctionInf, ImplicitFunctionTriu, ImplicitModel, ImplicitRNN
from idl_core.activations import ACTIVATIONS
from idl_core.kernels import KERNELS, Affine, Method, Model, available, backend, paths
from idl_core.kernels.triton import sizes, support


def on_this_machine(monkeypatch: pytest.MonkeyPatch, why: str | None) -> None:
    monkeypatch.setattr(support, "_obstacles", {"cuda": why, "cpu": why})


def on_a_card_of(kib: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second GPU has so much shared memory for one program."""

    def properties(device: torch.device) -> SimpleNamespace:
        assert device == torch.device("cuda", 1)
        return SimpleNamespace(shared_memory_per_block_optin=kib * 1024)

    monkeypatch.setattr(torch.cuda, "get_device_properties", properties)


def run_alone(code: str) -> None:
    """In a process of its own, which must end well."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_activation_has_a_path(monkeypatch: pytest.MonkeyPatch) -> None:
    on_this_machine(monkeypatch, None)
    assert available()["triton"] == "yes"
    assert set(paths()) == set(ACTIVATIONS)
    assert {name for name, path in paths().items() if path == "triton"} == set(support.KNOWN)
    assert paths()["gelu"] == "torch: no Triton form"
    on_this_machine(monkeypatch, "triton is not installed")
    assert available()["triton"] == "no: triton is not installed"
    monkeypatch.setattr(backend.numba, "why_not", lambda: "there is no numba")
    assert paths()["relu"] == "torch: triton is not installed"
    monkeypatch.setattr(backend.numba, "why_not", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    by_tiles = {name for name, path in paths().items() if path.startswith("numba where small")}
    assert by_tiles == {"relu", "leaky_relu", "identity", "tanh", "sigmoid", "silu", "gelu"}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)  # where models then are
    assert paths()["relu"] == "torch: triton is not installed"


@pytest.mark.parametrize("low_rank", [False, True])
def test_triton_is_nothing_else(low_rank: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    on_this_machine(monkeypatch, "it is on the cpu, not on a CUDA GPU")
    model = ImplicitModel(3, 2, 4, kernel="triton", low_rank=low_rank, rank=2 if low_rank else None)
    with pytest.raises(ValueError, match=r"kernel='triton' cannot .* on the cpu.*kernel='auto'"):
        model(torch.randn(2, 3))
    rnn = ImplicitRNN(3, 2, 4, 4, kernel="triton")
    with pytest.raises(ValueError, match="on the cpu"):
        rnn(torch.randn(2, 3, 3))


def test_auto_and_torch_agree_on_a_cpu() -> None:
    U = torch.randn(2, 3)
    torch.manual_seed(0)
    usual, auto = ImplicitModel(3, 2, 4, kernel="torch"), ImplicitModel(3, 2, 4)
    auto.load_state_dict(usual.state_dict())
    torch.testing.assert_close(usual(U), auto(U), atol=1e-5, rtol=0)


def test_a_kernel_of_no_name_is_refused() -> None:
    assert KERNELS == ("auto", "torch", "numba", "triton")
    with pytest.raises(ValueError, match="must be one of auto, torch, numba, triton, not 'cuda'"):
        ImplicitModel(3, 2, 4, kernel="cuda")

    class OnTorch(ImplicitFunctionInf):
        kernel = "torch"

    assert ImplicitModel(3, 2, 4, f=OnTorch).f.kernel == "torch"
    assert ImplicitModel(3, 2, 4, f=OnTorch, kernel="auto").f.kernel == "auto"
    with pytest.raises(ValueError, match="a triangular A needs no iteration"):
        ImplicitModel(3, 2, 4, f=ImplicitFunctionTriu, kernel="triton")


def test_copies_are_known_by_their_activation_too() -> None:
    """Its functions may be other objects in a copy; its name is the same."""
    model = ImplicitModel(3, 2, 4, activation="leaky_relu")
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert other.f.activation.name == "leaky_relu"

    class Own(ImplicitFunctionInf):
        @staticmethod
        def phi(X: torch.Tensor) -> torch.Tensor:
            return torch.relu(X)

    assert ImplicitModel(3, 2, 4, f=Own).f.activation.name is None


def test_without_triton_all_else_works() -> None:
    """It is looked for and never imported until a program is to run."""
    code = (
        "import sys, torch\n"
        "assert 'triton' not in sys.modules\n"
        "sys.modules['triton'] = None\n"  # as where it is not installed
        "from idl_core import ImplicitModel, ImplicitRNN, kernels\n"
        "ImplicitModel(3, 2, 4)(torch.randn(2, 3)).sum().backward()\n"
        "ImplicitRNN(3, 2, 4, 4)(torch.randn(2, 3, 3)).sum().backward()\n"
        "assert kernels.available()['triton'] == 'no: triton is not installed'\n"
    )
    run_alone(code)


@pytest.mark.parametrize(
    ("version", "takes"),
    [("3.2.0", False), ("3.4.0+git9b1", False), ("3.5.0", True), ("3.10.1", True), ("4.0", True)],
)
def test_a_triton_that_is_too_old_is_an_obstacle(
    version: str, takes: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """auto goes to torch there, with a GPU too; those before 3.5 do not compile the programs."""
    here = importlib.machinery.ModuleSpec("triton", None)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: here)
    monkeypatch.setattr(importlib.metadata, "version", lambda name: version)
    monkeypatch.setattr(support, "NO_TRITON", support._installed())
    monkeypatch.setattr(support, "_obstacles", {})
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setattr(torch.version, "hip", None)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    said = available()["triton"]
    if takes:
        assert said == "yes"
        assert paths()["relu"] == "triton"
    else:
        assert said == (
            f"no: triton is {version}; it takes 3.5 or later, which torch 2.9 or later brings"
        )
        assert paths()["relu"].startswith("torch: triton is")


def test_auto_takes_triton_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decided without a GPU: tensors without data stand for ones on it."""
    on_this_machine(monkeypatch, None)
    solver = ImplicitModel(3, 2, 4).f.solver

    class OnGPU(torch.Tensor):
        is_cuda = True
        device = torch.device("cuda", 1)

    on_a_card_of(227, monkeypatch)

    def on_gpu(*shape: int) -> torch.Tensor:
        return torch.empty(shape).as_subclass(OnGPU)

    def triton_takes(A: Affine, activation: str = "relu", kernel: str = "auto") -> bool:
        method = Method(ACTIVATIONS[activation], solver, solver, None, kernel)
        return backend.takes_triton(A, on_gpu(4, len(A.left)), method)

    def of_sequence(n: int, k: int) -> str:
        model = Model(on_gpu(n, n), None, on_gpu(n, 1 + k), on_gpu(k, n), on_gpu(k, 1 + k))
        method = Method(ACTIVATIONS["relu"], solver, solver, None)
        return backend.of_sequence(model, on_gpu(4, 5, 1), on_gpu(4, k), method)

    assert triton_takes(Affine(on_gpu(300, 300)))
    assert not triton_takes(Affine(on_gpu(9, 9)), kernel="torch")
    assert not triton_takes(Affine(on_gpu(9, 9)), "gelu")
    assert not triton_takes(Affine(on_gpu(9, 9).double()))
    wide = backend.WIDEST_AUTO + 1
    assert not triton_takes(Affine(on_gpu(wide, wide)))
    assert triton_takes(Affine(on_gpu(wide, wide)), kernel="triton")
    assert triton_takes(Affine(on_gpu(999, 128), on_gpu(999, 128)))
    assert not triton_takes(Affine(on_gpu(999, 129), on_gpu(999, 129)))
    assert of_sequence(20, 22) == "triton"
    assert of_sequence(129, 1) != "triton"


# KiB of an H100, an A100, an RTX 30, 40 or 50; n, k: what their 3 x TF32 and IEEE programs take,
# compiled (benchmarks/kernel_resources.py; tests/kernels/test_lowering.py holds the count to it).
@pytest.mark.parametrize(
    ("n", "k", "ieee", "tf32"),
    [
        (100, 0, {227, 163, 99}, {227, 163}),  # 69,632 and 139,264 bytes
        (20, 22, {227, 163, 99}, {227, 163, 99}),  # 17,408 and 34,816
        (64, 64, {227, 163, 99}, {227, 163}),  # 67,584 and 135,168
        (128, 32, {227, 163}, {227}),  # 107,520 and 212,992
        (129, 0, set(), set()),
    ],
)
def test_what_fits_depends_on_the_card_and_the_precision(
    n: int, k: int, ieee: set[int], tf32: set[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    device = torch.device("cuda", 1)
    for of_products, expected in (("ieee", ieee), ("tf32x3", tf32)):
        monkeypatch.setattr(sizes, "precision", lambda answer=of_products: answer)
        for kib in (227, 163, 99):
            on_a_card_of(kib, monkeypatch)
            assert sizes.fits_on_chip(n, k, device) == (kib in expected), (of_products, kib)


def test_products_are_as_torch_allows_its_own() -> None:
    code = (
        "import torch\n"
        "from idl_core.kernels.triton.precision import precision\n"
        "backends, said = torch.backends, []\n"
        "for setting in ('highest', 'high', 'medium', 'highest'):\n"
        "    torch.set_float32_matmul_precision(setting)\n"
        "    said.append(precision())\n"
        "for allowed in (True, False):\n"
        "    backends.cuda.matmul.allow_tf32 = allowed\n"
        "    said.append(precision())\n"
        "expected = 'ieee tf32x3 tf32x3 ieee tf32x3 ieee'\n"
        "if hasattr(backends.cuda.matmul, 'fp32_precision'):\n"
        "    backends.cuda.matmul.fp32_precision = 'none'\n"  # nothing of its own: handed down
        "    for setting in ('tf32', 'ieee', 'bf16', 'tf32'):\n"
        "        backends.fp32_precision = setting\n"
        "        said.append(precision())\n"
        "    backends.cuda.matmul.fp32_precision = 'ieee'\n"
        "    said.append(precision())\n"
        "    expected += ' tf32x3 ieee ieee tf32x3 ieee'\n"
        "assert said == expected.split(), said\n"
    )
    run_alone(code)


needs_numba = pytest.mark.skipif(
    available()["numba"] != "yes", reason="numba is not installed: pip install 'idl[fast]'"
)


@needs_numba
@pytest.mark.parametrize("options", [{}, {"low_rank": True, "rank": 2}])
def test_numba_is_nothing_else(options: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, usual = (ImplicitModel(3, 2, 4, kernel=k, **options) for k in ("numba", "torch"))
    usual.load_state_dict(model.state_dict())
    U = torch.randn(5, 3)
    torch.testing.assert_close(model(U), usual(U), atol=1e-5, rtol=0)
    monkeypatch.setattr(backend, "MOST_BYTES", 0)  # which is for auto to mind
    model(U).sum().backward()
    matrices = Model(*model._constrained(), model.B, model.C, model.D)
    chosen = {}
    for kernel in ("auto", "numba"):
        model.f.kernel = kernel
        method = model.f.method(model.last_solution)
        chosen[kernel] = backend.of_model(matrices, U, None, method)
    assert chosen["numba"] == "numba" != chosen["auto"]
    rnn = ImplicitRNN(3, 2, 4, 4, kernel="numba")
    rnn(torch.randn(2, 3, 3)).sum().backward()


@needs_numba
def test_what_numba_cannot_do_is_said_in_one_line() -> None:
    U, x = torch.randn(5, 3), torch.randn(2, 3, 3)
    beyond = r"kernel='numba' cannot solve this: elu has no numba form; kernel='auto' can"
    with pytest.raises(ValueError, match=beyond):
        ImplicitModel(3, 2, 4, kernel="numba", activation="elu")(U)
    partly = "of tanh it takes whole models alone, in float32 or of few samples"
    with pytest.raises(ValueError, match=partly):
        ImplicitModel(3, 2, 4, kernel="numba", activation="tanh").double()(U.double())
    with pytest.raises(ValueError, match=partly):
        ImplicitRNN(3, 2, 4, 4, kernel="numba", activation="tanh")(x)
    with pytest.raises(ValueError, match="of a low rank it takes whole models alone"):
        ImplicitModel(3, 2, 4, kernel="numba", low_rank=True, rank=2).equilibrium(U)
    with pytest.raises(ValueError, match="a triangular A needs no iteration"):
        ImplicitModel(3, 2, 4, f=ImplicitFunctionTriu, kernel="numba")
    model = ImplicitModel(3, 2, 4, kernel="numba")
    model.f.solver = Broyden()
    with pytest.raises(ValueError, match="it is a Picard iteration, and the solver is Broyden"):
        model(U)


KERNELS_FOLDER = Path(backend.__file__).parent
BACKENDS = ("torch", "numba", "triton")


def imported(path: Path) -> set[str]:
    """The backends' folders that a file imports from."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            names |= {name.split(".")[2] for name in whole if name.startswith("idl_core.kernels.")}
        elif isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names} - {"torch"}
    return names & set(BACKENDS)


def test_one_file_knows_the_backends() -> None:
    """And none of them knows another."""
    for path in KERNELS_FOLDER.glob("*.py"):
        assert path.name == "backend.py" or not imported(path), path
    for name in BACKENDS:
        for path in (KERNELS_FOLDER / name).rglob("*.py"):
            assert imported(path) <= {name}, path
