"""Which products of float32 the programs take: what torch allows for its own."""

from __future__ import annotations

import torch


def precision() -> str:
    """TF32 in three products, accurate as float32 is, where torch may use TF32; else IEEE's."""
    matmul = torch.backends.cuda.matmul
    # The newer setting where there is one: torch refuses the old one's once it has been used. It
    # tells what is in force: its own, or what torch.backends.fp32_precision hands down.
    allowed = getattr(matmul, "fp32_precision", None)
    tf32 = matmul.allow_tf32 if allowed is None else allowed == "tf32"
    return "tf32x3" if tf32 else "ieee"
