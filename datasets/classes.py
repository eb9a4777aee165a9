"""Which class a label stands for: by the names of the data, or of the model that they are for."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .errors import DatasetError, close_match, shortlist
from .source import Request


def classes_of_labels(request: Request, found: Sequence[str]) -> tuple[str, ...]:
    """The classes that labels count: those of the model in the request, else those of the data.

    found: the classes of the data. Raises DatasetError where one of them is not the model's, and
    where a single class is all that there is to learn.
    """
    if request.class_names is None:
        if len(found) < 2:
            raise DatasetError(
                f"{request.where}: '{found[0]}' is the only class: every answer would be right; "
                "give samples of two classes at least."
            )
        return tuple(found)
    for name in found:
        if name not in request.class_names:
            numbers = all(each.isdecimal() for each in found)
            words = numbers and not all(each.isdecimal() for each in request.class_names)
            hint = close_match(name, request.class_names)
            if words:
                hint = " Store labels as the words themselves."
            raise DatasetError(
                f"{request.where} does not fit: class '{name}' is none of those that the model was "
                f"trained on ({shortlist(request.class_names)}).{hint}"
            )
    return tuple(request.class_names)


def relabelled(labels: Tensor, found: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Labels that counted the classes `found`, made to count `classes`, which has all of them."""
    if tuple(found) == tuple(classes)[: len(found)]:
        return labels
    return torch.tensor([classes.index(name) for name in found])[labels]
