"""The benchmark of the GPU kernels: its arithmetic, and its end where there is no GPU."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from idl_core import Picard
from idl_core.activations import ACTIVATIONS
from idl_core.equilibrium.solution import LastSolution
from idl_core.kernels import Affine, Method, equilibrium

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def test_flops_are_those_that_torch_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    spec = importlib.util.spec_from_file_location("gpu_benchmark", SCRIPT)
    benchmark = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(benchmark)
    m, n, report = 5, 30, LastSolution()
    A = (0.5 * torch.randn(n, n) / n).requires_grad_()
    Z = torch.randn(m, n, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        solver = Picard()
        method = Method(ACTIVATIONS["relu"], solver, solver, report, "torch")
        X = equilibrium(Affine(A), Z, None, method)
        X.sum().backward()
    of_gradient = 2 * m * n**2  # of A, one product of all
    assert int(report.forward.iterations.max()) > 1
    assert benchmark.flops(report, n) == counter.get_total_flops() - of_gradient
    # 2e12 flops in 100 ms are 20 TFLOP/s.
    assert benchmark.share(2e12, 100.0, 80.0) == pytest.approx(0.25)


@pytest.mark.skipif(torch.cuda.is_available(), reason="it would run for minutes")
def test_without_a_gpu_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(SCRIPT.parent)
    monkeypatch.setattr("sys.argv", [str(SCRIPT)])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert ended.value.code == 0
    said = "no CUDA GPU that torch can use: there is nothing to time here.\n"
    assert capsys.readouterr().out == said
