"""What the Triton programs take of an H100, compiled for it on any machine: no GPU is needed.

    python benchmarks/kernel_resources.py [--json]

Registers a thread, bytes that a thread spills to its stack, shared memory of a program, and which
instructions multiply: facts of the compiler, not of a run. ptxas comes with triton.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# H100: what one program may take.
REGISTERS, SHARED = 255, 227 * 1024
ARCHITECTURE = 90

# Pointers that a direction is not given.
_CHAIN_ABSENT = {False: {"ADDED", "START", "POINT"}, True: {"ADDED", "START"}}
_SEQUENCE_ABSENT = {False: {"POINT"}, True: {"D"}}
_OTHER_ABSENT = {False: {"START", "POINT"}, True: {"START"}}


def programs() -> Iterator[tuple[str, Any, dict[str, Any], dict[bool, set[str]]]]:
    """Label, program, constants, absent pointers: the sizes that the docs speak of."""
    from idl_core.kernels.triton import chain, low_rank, sizes, streamed

    for n in (32, 64, 100):
        cut = sizes.of_chain(n, 0) | {"CARRY": False}
        yield f"dense on chip, n {n}", chain.solve_chain, cut, _CHAIN_ABSENT
    for n, k in ((20, 22), (64, 64), (128, 32)):
        cut = sizes.of_chain(n, k) | {"CARRY": True}
        yield f"sequence, n {n}, k {k}", chain.solve_chain, cut, _SEQUENCE_ABSENT
    for rows in (8, 16, 32, 64):
        cut = sizes.of_streamed(rows)
        yield f"dense streamed, {rows} rows", streamed.solve_streamed, cut, _OTHER_ABSENT
    for r in (4, 32, 128):
        cut = sizes.of_low_rank(r)
        yield f"low rank, r {r}", low_rank.solve_low_rank, cut, _OTHER_ABSENT


def compiled(program: Any, constants: dict[str, Any], absent: set[str]) -> dict[str, int]:
    """Compile for an H100 and read what it takes."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = constants | dict.fromkeys(absent)
    options = {name: constants.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    signature = {}
    for name in program.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name == "tol":
            signature[name] = "fp32"
        else:
            signature[name] = "*fp32" if name.isupper() else "i32"
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, (name, kind) in enumerate(signature.items())
        if kind == "*fp32" or name == "padded"
    }
    source = ASTSource(fn=program, signature=signature, constexprs=constants, attrs=aligned)
    target = GPUTarget("cuda", ARCHITECTURE, 32)
    binary = triton.compile(source, target=target, options=options)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "program.cubin"
        path.write_bytes(binary.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        said = subprocess.run([tool, "-res-usage", path], capture_output=True, text=True).stdout
    registers, stack = re.search(r"REG:(\d+) STACK:(\d+)", said).groups()  # type: ignore[union-attr]
    ptx = binary.asm["ptx"]
    return {
        "warps": options["num_warps"],
        "registers": int(registers),
        "stack": int(stack),
        "shared": binary.metadata.shared,
        "fma": ptx.count("fma.rn.f32"),
        "mma": ptx.count("mma.sync") + ptx.count("wgmma.mma"),
    }


def measure(only: str) -> Iterator[dict[str, Any]]:
    """One row a program, direction and precision."""
    for label, program, cut, absent in programs():
        for precision in ("ieee", "tf32x3"):
            for adjoint in (False, True):
                row = f"{label}, {'adjoint' if adjoint else 'forward'}, {precision}"
                if not re.search(only, row):
                    continue
                constants = {"PHI": "relu", "ADJOINT": adjoint, "PRECISION": precision}
                yield {"program": row} | compiled(program, cut | constants, absent[adjoint])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--json", action="store_true", help="one object a line")
    parser.add_argument("--only", default="", help="a regular expression on the row's name")
    arguments = parser.parse_args()
    if importlib.util.find_spec("triton") is None:
        print("triton is not installed; it comes with torch for CUDA on Linux.")
        return 0
    os.environ.pop("TRITON_INTERPRET", None)
    if not arguments.json:
        print(f"{'program':48} {'warps':>5} {'regs':>5} {'spill B':>7} {'shared B':>9}  fma / mma")
    for row in measure(arguments.only):
        if arguments.json:
            print(json.dumps(row), flush=True)
            continue
        print(
            f"{row['program']:48} {row['warps']:5} {row['registers']:5} {row['stack']:7} "
            f"{row['shared']:9,}  {row['fma']} / {row['mma']}",
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
