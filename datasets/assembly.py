"""From the samples of a source to a data set: the validation cut and the normalisation."""

from __future__ import annotations

import torch
from torch import Tensor

from .dataset import Dataset
from .errors import DatasetError
from .normalisation import Normalisation
from .source import Request
from .split import Split


def assemble(
    request: Request,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    *,
    class_names: tuple[str, ...] = (),
) -> Dataset:
    """The data set made of the pairs (x, y) `train` and `test`; see `Split` for their types.

    The validation split is cut from `train` by `request.seed`; `test` is left whole. Without
    `class_names` the task is regression. Raises DatasetError where the cut leaves nothing.
    """
    x, y = train
    kept, held_out = validation_cut(len(x), request.val_fraction, request.seed)
    train_x, train_y = (x, y) if held_out is None else (x[kept], y[kept])
    normalisation = Normalisation.of(train_x, train_y)
    return Dataset(
        name=request.name,
        train=Split(train_x, train_y, normalisation),
        val=None if held_out is None else Split(x[held_out], y[held_out], normalisation),
        test=Split(*test, normalisation),
        task="classification" if class_names else "regression",
        input_shape=tuple(x.shape[1:]),
        output_dim=len(class_names) or y.shape[1],
        class_names=class_names,
    )


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
            f"val_fraction={fraction} of {m:,} train samples leaves the {empty} split empty: give "
            f"a {give} fraction, or 0 for no validation split."
        )
    order = torch.randperm(m, generator=torch.Generator().manual_seed(seed))
    # Sorted: both splits keep the order of the source, which the drawing has no say in.
    return order[held_out:].sort().values, order[:held_out].sort().values
