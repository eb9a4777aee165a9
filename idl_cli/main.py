"""Entry point of `idl`: runs the command, and turns its errors into one line and an exit code.

Nothing heavy is imported here: `idl --help` must answer at once, so a command's module is imported
only when that command runs.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from idl_cli.errors import InputError, RunFailed, close_match
from idl_cli.safe_streams import lost_output, make_streams_safe

# command -> one line of help. `idl X` is `commands/x.py`, which has `main(arguments) -> exit code`.
COMMANDS = {
    "train": "train a model: idl train model=implicit data=cifar10",
    "sim": "learn an implicit model from a network: idl sim solver=admm",
    "eval": "evaluate a run on its test set: idl eval run=<dir> [data=...]",
    "generate": "text from a run: idl generate run=<dir> prompt=...",
    "runs": "table of runs: idl runs [dir] [--sort KEY]",
    "compare": "what differs between runs: idl compare RUN RUN",
    "plot": "figures of a run: idl plot run=<dir>",
    "data": "data sets: idl data list | idl data prepare <name>",
    "info": "versions, devices, kernels, where data is",
}

HELP = """\
idl: experiments with implicit deep learning

usage: idl <command> [arguments]

commands:
{commands}

  idl <command> --help     what the command takes
  idl --version            the version

Start here: idl train        trains an implicit model on embedded data, offline
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns: 0 done, 2 the user's input is wrong, 1 a run that failed, 130 for Ctrl-C, 143 for
    SIGTERM, 129 for a closed terminal. What is raised beyond these is a bug of ours, and Python
    exits with 1.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    # Before torch is loaded. Its threads wait for each other by spinning, by default for so long
    # that beside another busy process each small step costs a time slice; a short spin does not.
    os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    make_streams_safe()
    try:
        return _run(words)
    except (InputError, RunFailed) as error:
        if "debug=true" in words:
            traceback.print_exc()
        print(f"idl: {error}", file=sys.stderr)
        return 2 if isinstance(error, InputError) else 1
    except (MemoryError, RuntimeError) as error:
        if (line := _too_large(error)) is None:
            raise
        print(f"idl: {line}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        sys.stdout.flush()
        if reason := lost_output():
            print(f"idl: output could not be written ({reason}) and is lost", file=sys.stderr)


def _too_large(error: Exception) -> InputError | None:
    """The line for an allocation that failed; None for another error."""
    if "torch" not in sys.modules:
        return InputError("out of memory") if isinstance(error, MemoryError) else None
    from idl_cli.processes.device_memory import too_large

    return too_large(error)


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        lines = (f"  {name:<8} {text}" for name, text in COMMANDS.items())
        print(HELP.format(commands="\n".join(lines)), end="")
        return 0
    if words[0] in ("-V", "--version"):
        from importlib.metadata import version

        print(f"idl {version('idl')}")
        return 0
    return _command(words[0])(words[1:])


def _command(name: str) -> Callable[[Sequence[str]], int]:
    if name not in COMMANDS:
        raise InputError(
            f"unknown command '{name}'.{close_match(name, COMMANDS)} "
            f"Commands: {', '.join(COMMANDS)}"
        )
    run: Callable[[Sequence[str]], int] = importlib.import_module(f"idl_cli.commands.{name}").main
    return run


if __name__ == "__main__":
    sys.exit(main())
