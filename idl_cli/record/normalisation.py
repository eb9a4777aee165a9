"""The normalisation of the data that a model was trained on, kept with its weights."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

from idl_cli.errors import InputError
from idl_cli.record.fingerprint import read_fingerprint
from idl_core.training import Checkpoint
from idl_datasets import Dataset, Normalisation, SeriesDataset

_PREFIX = "data."
_OTHER_UNITS = 20.0  # times: other data deviate otherwise, but seldom by this
_NAMES = tuple(field.name for field in dataclasses.fields(Normalisation))

AnyDataset = TypeVar("AnyDataset", bound=Dataset)


def kept_normalisation(dataset: Dataset) -> dict[str, Tensor]:
    """The normalisation as tensors for a checkpoint; none for texts."""
    if dataset.task == "language":
        return {}
    return {f"{_PREFIX}{name}": getattr(dataset.normalisation, name) for name in _NAMES}


def as_trained(
    dataset: AnyDataset, checkpoint: Checkpoint, say: Callable[[str], None]
) -> AnyDataset:
    """The data normalised as in the training of a checkpoint; `check_fit` comes first.

    Raises: InputError where what the checkpoint holds is no normalisation of its samples.
    """
    if dataset.task == "language":
        return dataset
    kept = [checkpoint.tensors.get(f"{_PREFIX}{name}") for name in _NAMES]
    own = dataset.normalisation
    if not any(tensor is not None for tensor in kept):
        say(
            "the checkpoint is of an older idl, which kept no normalisation: the data are "
            "normalised by their own train split"
        )
        if isinstance(dataset, SeriesDataset):
            return dataset
        return dataset.normalised(Normalisation(own.mean, own.std))  # targets were not scaled then
    shape = read_fingerprint(checkpoint)["input_shape"]
    try:
        mean, std, center, scale = (tensor for tensor in kept if tensor is not None)
        if shape != dataset.input_shape:  # as many values, in another shape
            mean, std = (each.expand(shape).reshape(dataset.input_shape) for each in (mean, std))
        torch.broadcast_shapes(mean.shape, std.shape, dataset.input_shape)
        torch.broadcast_shapes(center.shape, scale.shape, (dataset.output_dim,))
    except (RuntimeError, ValueError) as error:
        raise InputError("the checkpoint is damaged: its normalisation does not fit") from error
    here, there = float(own.std.max()), float(std.max())
    if not there / _OTHER_UNITS < here < there * _OTHER_UNITS:
        say(
            f"warning: data={dataset.name} deviates by {here:.3g} where the data of the training "
            f"did by {there:.3g}: they must be in the same units (both bytes, or both floats)"
        )
    kind = own.mean.dtype
    return dataset.normalised(Normalisation(mean.to(kind), std.to(kind), center, scale))


def targets_like_inputs(dataset: AnyDataset) -> AnyDataset:
    """Put targets on the scale of the inputs, for models that predict the change since the last.

    Raises: InputError where the targets are class labels.
    """
    if dataset.task != "regression":
        raise InputError(
            f"model.differences=true predicts the next value, but data={dataset.name} has class "
            "labels: leave it out, or give floats as targets"
        )
    own = dataset.normalisation
    center, scale = (each.double().flatten() for each in (own.mean, own.std))
    return dataset.normalised(Normalisation(own.mean, own.std, center, scale))
