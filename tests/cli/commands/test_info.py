"""`idl info`: the same facts for people and for programs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from idl_cli.main import main


def test_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("IDL_DATA_ROOT", str(tmp_path / "data"))
    assert main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["versions"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert facts["devices"]["cpu"]["torch_threads"] == torch.get_num_threads()
    assert len(facts["devices"]["gpus"]) == torch.cuda.device_count()
    assert facts["kernels"]["torch"] == "yes"
    assert facts["activations"]["elu"] == "torch: no Triton form"
    if not torch.cuda.is_available():
        assert facts["kernels"]["triton"].startswith("no: ")
        assert "torch: " in facts["activations"]["tanh"]
    assert facts["data"]["root"] == str(tmp_path / "data")
    assert "digits" in facts["data"]["ready"]
    assert "mnist" in facts["data"]["absent"]
    assert facts["runs"] == str(tmp_path / "runs")
    assert not list(tmp_path.iterdir())  # it looks and writes nothing


def test_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["kernel", "torch", "yes"] in lines
    assert ["activation", "elu", "torch:", "no", "Triton", "form"] in lines
    assert any(line[:2] == ["version", "idl"] for line in lines)
    assert any(line[:2] == ["device", "cpu"] for line in lines)
    assert any(line[:2] == ["data", "root"] for line in lines)


def test_a_package_that_is_absent_is_said(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("idl_cli.commands.info._PACKAGES", ("no-such-package",))
    assert main(["info"]) == 0
    assert "no-such-package  not installed" in " ".join(capsys.readouterr().out.split(" "))


def test_words_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", "torch"]) == 2
    assert "takes no words" in capsys.readouterr().err
    assert main(["info", "--jsn"]) == 2
    assert "Did you mean '--json'" in capsys.readouterr().err
