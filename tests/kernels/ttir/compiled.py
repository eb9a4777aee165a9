"""The TTIR of a Triton program for an NVIDIA GPU that need not be there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def compiled(
    program: Any,
    signature: Mapping[str, str],
    constants: Mapping[str, Any],
    options: Mapping[str, Any],
    capability: int,
) -> str:
    """TTIR text of `program`, without locations.

    Args:
        signature: argument -> "*fp32", "i32", "fp32" or, of those in `constants`, "constexpr".
        constants: compile-time arguments; a pointer given as None is absent.
        options: of the compiler, such as num_warps.
        capability: of the GPU: 80, 90.
    """
    from triton._C.libtriton import ir
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, make_backend

    source = ASTSource(fn=program, signature=dict(signature), constexprs=dict(constants))
    target = GPUTarget("cuda", capability, 32)
    backend = make_backend(target)
    chosen = backend.parse_options(dict(options))
    context = ir.context()
    ir.load_dialects(context)
    backend.load_dialects(context)
    generators, modules = backend.get_codegen_implementation(chosen), backend.get_module_map()
    module = source.make_ir(target, chosen, generators, modules, context)
    stages: dict[str, Any] = {}
    backend.add_stages(stages, chosen, source.language)
    module = stages["ttir"](module, {})
    if hasattr(module, "str_nodebug"):
        return str(module.str_nodebug())
    return re.sub(r" loc\((?:[^()]|\([^()]*\))*\)", "", str(module))
