"""The model that a run has trained, built again from its directory without its data."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Literal, cast

import torch
from torch import nn

from idl_cli.config.build_model import build_model
from idl_cli.record.checkpoints import chosen_checkpoint, load_checkpoint
from idl_cli.record.config_file import recorded_config
from idl_cli.record.fingerprint import model_of, read_fingerprint
from idl_core.models import ImplicitModel, ImplicitRNN
from idl_datasets import Dataset

if TYPE_CHECKING:
    from numpy.typing import NDArray


def saved_model(run: Path, checkpoint: Literal["best", "last"] = "best") -> nn.Module:
    """The model with the weights of a checkpoint, on the CPU.

    Raises: InputError where the configuration or the checkpoint is absent or damaged.
    """
    config = recorded_config(run)
    saved = chosen_checkpoint(run / "checkpoints", checkpoint)
    # The sizes of the data are in the checkpoint: the data itself need not be here.
    sizes = read_fingerprint(saved)
    data = SimpleNamespace(
        name=config.data.name, input_shape=sizes["input_shape"], output_dim=sizes["output_dim"]
    )
    model = build_model(model_of(config, saved), cast(Dataset, data))
    if config.trainer.precision == "64":
        model = model.to(torch.float64)
    load_checkpoint(model, saved, run)
    return model


@dataclass(frozen=True)
class SavedBlocks:
    """The matrices of an implicit model, and what they map.

    Attributes:
        blocks: A (n, n), after its constraint, B (n, p), C (q, n), D (q, p); with a bias, B and D
            have one column more.
        inputs, outputs: of [B; D] and of [C D], as they are written in a figure.
    """

    blocks: dict[str, NDArray[Any]]
    inputs: str = "input $u$"
    outputs: str = "output $\\hat y$"


def saved_blocks(run: Path) -> SavedBlocks | None:
    """The matrices of a run's best checkpoint; of an RNN those of its step, which makes h.

    None for a run of another model. Raises: InputError where the configuration or the checkpoint is
    damaged.
    """
    model = saved_model(run)
    names: dict[str, str] = {}
    if isinstance(model, ImplicitRNN):
        model = model.recurrent.layer
        names = {"inputs": "input $u$ and $h$ before", "outputs": "hidden state $h$"}
    if not isinstance(model, ImplicitModel):
        return None
    with torch.no_grad():
        A, B, C = model.effective_A(), model.B, model.C
        D = model.D if model.D is not None else torch.zeros(len(C), B.shape[1])
        blocks = {"A": A, "B": B, "C": C, "D": D}
        return SavedBlocks({name: each.double().numpy() for name, each in blocks.items()}, **names)
