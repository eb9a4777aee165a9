"""The inputs of the user's arrays: pictures with their channels first, else floats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..errors import DatasetError
from .numbers import floats

_CHANNELS = (1, 2, 3, 4)  # gray or RGB, with transparency or without
_OTHER_SCALE = 20.0  # times: splits deviate otherwise, but never by this


def inputs(
    path: Path, arrays: dict[str, np.ndarray], channels: str | None, notes: list[str]
) -> dict[str, Tensor]:
    """The samples of each split: uint8 as they are, else float32; channels first.

    channels: "first" or "last", as the user says; None: recognised, and said in `notes`
    """
    kinds = {split: array.dtype for split, array in arrays.items()}
    for split, kind in kinds.items():
        if (kind == np.uint8) != (kinds["train"] == np.uint8):
            # 0..255 on one side and most likely 0..1 on the other: no metric would say so.
            raise DatasetError(
                f"{path}: x_train is {kinds['train']} but x_{split} is {kind}: store both as uint8 "
                "or both as floats, on one scale."
            )
    shape = arrays["train"].shape
    if _are_last(path, shape, channels, notes):
        arrays = {split: array.transpose(0, 3, 1, 2) for split, array in arrays.items()}
    if kinds["train"] == np.uint8:
        return {split: torch.from_numpy(np.ascontiguousarray(array))
                for split, array in arrays.items()}  # fmt: skip
    if len(shape) == 3 and shape[1] == shape[2] > 4:
        notes.append(
            f"x_train {shape} holds floats: read as sequences of {shape[1]} steps of {shape[2]} "
            f"features; gray pictures are (m, 1, {shape[1]}, {shape[2]})"
        )
    tensors = {split: floats(path, f"x_{split}", array, np.float32)
               for split, array in arrays.items()}  # fmt: skip
    _check_scales(tensors, notes)
    return tensors


def _are_last(path: Path, shape: tuple[int, ...], channels: str | None, notes: list[str]) -> bool:
    """Whether samples of this shape have their channels last."""
    if len(shape) != 4:
        if channels == "last":
            raise DatasetError(
                f"{path}: channels=last is of pictures (m, height, width, channels), but x_train "
                f"has shape {shape}."
            )
        return False
    if channels is not None:
        return channels == "last"
    first, last = shape[1], shape[3]
    if first in _CHANNELS:
        if last in _CHANNELS and last != first and first != shape[2]:
            notes.append(
                f"x_train {shape}: {first} channels of {shape[2]}x{last} are read; "
                "data.channels=last reads it otherwise"
            )
        return False
    height, width = shape[1:3]
    if last in _CHANNELS:
        notes.append(
            f"x_train {shape} has its channels last: read as {last} channels of {height}x{width} "
            "(data.channels=first reads it otherwise)"
        )
        return True
    if height == width != last:
        raise DatasetError(
            f"{path}: x_train {shape} is either {height} channels of {width}x{last} or {last} "
            f"channels of {height}x{width}: say data.channels=first or last."
        )
    return False


def _check_scales(tensors: dict[str, Tensor], notes: list[str]) -> None:
    """Say where a split is on another scale than train."""
    largest = {split: float(tensor.abs().max()) for split, tensor in tensors.items()}
    train = largest["train"]
    for split, size in largest.items():
        if min(train, size) > 0 and max(train / size, size / train) > _OTHER_SCALE:
            notes.append(
                f"x_{split} goes up to {size:.4g} and x_train to {train:.4g}: are they in the same "
                "units?"
            )
