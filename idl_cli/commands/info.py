"""`idl info`: versions, devices, kernels, and where data and runs are."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from idl_cli.display.tables import Column, print_table
from idl_cli.errors import InputError
from idl_cli.plain_arguments import parse_words, wants_help
from idl_cli.record.summary import versions

USAGE = """\
usage: idl info [--json]

Versions, devices, which kernels can run here and which an activation takes, where data is and
where runs go.
"""

_PACKAGES = ("torch", "torchvision", "numpy", "hydra-core", "triton", "wandb")


def main(arguments: Sequence[str]) -> int:
    """Run `idl info`."""
    if wants_help(arguments):
        print(USAGE, end="")
        return 0
    words = parse_words(arguments, flags=("json",))
    if words.plain:
        raise InputError(f"idl info takes no words, and got '{words.plain[0]}'.")
    facts = collect()
    if "json" in words.flags:
        print(json.dumps(facts, indent=2))
    else:
        _show(facts)
    return 0


def collect() -> dict[str, Any]:
    """All facts by section, as `--json` prints them."""
    import idl_datasets
    from idl_core import kernels

    names = [name for name in idl_datasets.names() if not idl_datasets.needs_path(name)]
    return {
        "versions": versions(_PACKAGES),
        "devices": _devices(),
        "kernels": kernels.available(),
        "activations": kernels.paths(),
        "data": {
            "root": str(idl_datasets.default_root()),
            "ready": [name for name in names if idl_datasets.is_ready(name)],
            "absent": [name for name in names if not idl_datasets.is_ready(name)],
        },
        "runs": str(Path("runs").absolute()),
    }


def _devices() -> dict[str, Any]:
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        gpus.append({"name": properties.name, "memory_gib": round(properties.total_memory / 2**30)})
    # The cores that this process may use can be fewer than the machine's (taskset, containers).
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cpu": {
            "name": _processor(),
            "cores": os.cpu_count(),
            "usable_cores": usable,
            "torch_threads": torch.get_num_threads(),
        },
        "cuda": torch.version.cuda,
        "gpus": gpus,
        "mps": torch.backends.mps.is_available(),
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as stream:
            for line in stream:
                if line.startswith("model name"):
                    return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _show(facts: dict[str, Any]) -> None:
    rows: list[tuple[str, str, str]] = []
    for package, version in facts["versions"].items():
        rows.append(("version", package, version or "not installed"))
    cpu, gpus = facts["devices"]["cpu"], facts["devices"]["gpus"]
    cores = f"{cpu['usable_cores']} of {cpu['cores']} cores, {cpu['torch_threads']} torch threads"
    rows.append(("device", "cpu", f"{cores} ({cpu['name']})"))
    for index, gpu in enumerate(gpus):
        rows.append(("device", f"cuda:{index}", f"{gpu['name']}, {gpu['memory_gib']} GiB"))
    if not gpus:
        built = "torch sees none" if facts["devices"]["cuda"] else "this torch is built for CPUs"
        rows.append(("device", "cuda", built))
    if facts["devices"]["mps"]:
        rows.append(("device", "mps", "yes"))
    rows += [("kernel", name, answer) for name, answer in facts["kernels"].items()]
    rows += [("activation", name, path) for name, path in facts["activations"].items()]
    rows.append(("data", "root", facts["data"]["root"]))
    rows.append(("data", "ready", ", ".join(facts["data"]["ready"]) or "none"))
    rows.append(("data", "absent", ", ".join(facts["data"]["absent"]) or "none"))
    rows.append(("runs", "below", facts["runs"]))
    heads = ("what", "name", "value")
    cells = [list(column) for column in zip(*rows, strict=True)]
    # A long value wraps on a terminal: a path cut short is no use.
    pairs = zip(heads, cells, strict=True)
    print_table([Column(head, column, wraps=head == "value") for head, column in pairs])
