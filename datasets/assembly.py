"""From the samples of a source to a data set: the validation cut and the normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .classes import classes_of_labels, relabelled
from .dataset import Dataset
from .digest import digest_of
from .errors import DatasetError
from .normalisation import Normalisation
from .source import Request
from .split import Split

Pair = tuple[Tensor, Tensor]
"""Inputs and targets of some samples; see `Split` for their types."""


@dataclass(frozen=True)
class Samples:
    """What a source has read.

    val: a validation split of the source's own; None: it is cut from train
    class_names: in the order of the labels; () for regression
    digest: of the files, where decoding them is not the same everywhere; None: of the tensors
    """

    train: Pair
    test: Pair
    val: Pair | None = None
    class_names: tuple[str, ...] = ()
    digest: str | None = None
    notes: Sequence[str] = ()


def assemble(request: Request, samples: Samples) -> Dataset:
    """The data set made of what was read.

    The validation split is the source's own or cut from train by `request.seed`; `test` is left
    whole. Labels count the classes of the model that the request is for, if it is for one.

    Raises DatasetError where the cut leaves nothing, or the classes will not do.
    """
    digest = samples.digest or _digest(samples)
    found = samples.class_names
    classes = classes_of_labels(request, found) if found else ()

    def labelled(pair: Pair) -> Pair:
        return pair[0], relabelled(pair[1], found, classes) if found else pair[1]

    notes = list(samples.notes)
    train, val = _train_and_val(request, samples, notes)
    train, test = labelled(train), labelled(samples.test)
    normalisation = Normalisation.of(*train)
    return Dataset(
        name=request.name,
        train=Split(*train, normalisation),
        val=None if val is None else Split(*labelled(val), normalisation),
        test=Split(*test, normalisation),
        task="classification" if classes else "regression",
        input_shape=tuple(train[0].shape[1:]),
        output_dim=len(classes) or train[1].shape[1],
        class_names=classes,
        digest=digest,
        notes=tuple(notes),
    )


def _digest(samples: Samples) -> str:
    parts = [*samples.train, *samples.test, *(samples.val or ())]
    return digest_of("\0".join(samples.class_names), *parts)


def _train_and_val(
    request: Request, samples: Samples, notes: list[str]
) -> tuple[Pair, Pair | None]:
    """The train and validation samples; what is said about them is added to `notes`."""
    x, y = samples.train
    if samples.val is not None:
        if request.val_fraction:
            notes.append(
                f"its own validation samples ({len(samples.val[0]):,}) are the validation split: "
                "none is cut from train, whatever data.val_fraction says"
            )
            return (x, y), samples.val
        notes.append(
            f"its own validation samples ({len(samples.val[0]):,}) are left out, as "
            "data.val_fraction=0 asks for no validation split"
        )
        return (x, y), None
    kept, held_out = validation_cut(len(x), request.val_fraction, request.seed)
    if held_out is None:
        return (x, y), None
    return (x[kept], y[kept]), (x[held_out], y[held_out])


def validation_cut(m: int, fraction: float, seed: int) -> tuple[Tensor, Tensor | None]:
    """Indices of the samples that stay in train, and of those cut out (None where fraction is 0).

    round(fraction * m) samples are drawn by a generator of their own: the global one is not
    touched, and the cut does not depend on what was drawn before.
    """
    if fraction == 0:
        return torch.arange(m), None
    held_out = round(fraction * m)
    if not 0 < held_out < m:
        empty, give = ("validation", "larger") if held_out == 0 else ("train", "smaller")
        raise DatasetError(
            f"data.val_fraction={fraction} of {m:,} train samples leaves the {empty} split empty: "
            f"give a {give} fraction, or 0 for no validation split."
        )
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    # Sorted: both splits keep the order of the source, which the drawing has no say in.
    return order[held_out:].sort().values, order[:held_out].sort().values
