"""The matrices A, B, C, D that a run of the implicit model, or of the RNN, has learnt."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from idl_cli.record.saved_model import trained_model
from idl_core.models import ImplicitModel, ImplicitRNN

if TYPE_CHECKING:
    from numpy.typing import NDArray


def trained_blocks(run: Path) -> dict[str, NDArray[Any]] | None:
    """A (n, n) as the equilibrium sees it, after its constraint, B (n, p), C (q, n), D (q, p).

    Of the best checkpoint; with a bias, B and D have one column more. Of an RNN the blocks are its
    step's, whose input is [u, h] and whose output is h. None for a run of another model. Raises:
    InputError where the configuration or the checkpoint is damaged.
    """
    model = trained_model(run)
    if isinstance(model, ImplicitRNN):
        model = model.recurrent.layer
    if not isinstance(model, ImplicitModel):
        return None
    with torch.no_grad():
        A, B, C = model.effective_A(), model.B, model.C
        D = model.D if model.D is not None else torch.zeros(len(C), B.shape[1])
        blocks = {"A": A, "B": B, "C": C, "D": D}
        return {name: block.double().numpy() for name, block in blocks.items()}
