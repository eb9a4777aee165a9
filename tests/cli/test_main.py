"""The dispatcher: help, version, mistakes, exit codes, and that nothing heavy is imported early."""

from __future__ import annotations

import shlex
import subprocess
import sys
from collections.abc import Sequence

import pytest

from idl_cli import main as dispatcher
from idl_cli.errors import InputError
from idl_cli.main import COMMANDS, main

HEAVY = ("torch", "hydra", "omegaconf", "numpy", "matplotlib", "wandb", "sklearn", "rich")


def test_help_and_version_import_nothing_heavy() -> None:
    # In one fresh process, since this one has everything imported already.
    program = f"""
import sys
from idl_cli.main import COMMANDS, main
assert main([]) == 0 and main(["--help"]) == 0 and main(["--version"]) == 0
assert main(["nonsense"]) == 2
light = ["runs", "compare", "plot", "data", "info"]
for command in light:
    assert main([command, "--help"]) == 0, command
assert main(["runs"]) == 0 and main(["runs", "--json"]) == 0
loaded = [name for name in {HEAVY!r} if name in sys.modules]
assert not loaded, loaded
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert all(f"\n  {name} " in run.stdout for name in COMMANDS)
    assert "\nidl 0." in run.stdout


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    output = capsys.readouterr().out
    for name, text in COMMANDS.items():
        assert name in output
        assert text in output


@pytest.mark.parametrize("command", ["runs", "compare", "plot", "data", "info"])
def test_every_small_command_has_a_usage(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: idl {command}")


def test_unknown_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["trian", "model=rnn"]) == 2
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.count("\n") == 1
    assert "'trian'. Did you mean 'train'?" in output.err


def command_that(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """Make every command raise `error`."""

    def fails(arguments: Sequence[str]) -> int:
        raise error

    monkeypatch.setattr(dispatcher, "_command", lambda name: fails)


def test_wrong_input_has_a_traceback_only_when_asked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command_that(monkeypatch, InputError("data.root: no."))
    assert main(["train"]) == 2
    assert capsys.readouterr().err == "idl: data.root: no.\n"
    assert main(["train", "debug=true"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_ctrl_c_is_130(monkeypatch: pytest.MonkeyPatch) -> None:
    command_that(monkeypatch, KeyboardInterrupt())
    assert main(["train"]) == 130


def test_our_own_bugs_are_not_dressed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    command_that(monkeypatch, ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        main(["train"])


def test_a_reader_that_leaves_early_is_no_error() -> None:
    # Enough help for one pipe to close on: the reader takes nothing at all.
    run = subprocess.run(
        f"{shlex.quote(sys.executable)} -m idl_cli.main --help | true; echo ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
    )
    assert run.stdout == "0\n"
    assert run.stderr == ""
