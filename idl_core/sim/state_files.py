"""States on disk: NumPy's .npz, or safetensors; neither can carry code."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from idl_core.sim.states import Layer

KEYS = ("X", "U", "Z", "Y")


def save_states(
    path: str | os.PathLike[str], states: dict[str, np.ndarray[Any, Any]], layers: list[Layer]
) -> None:
    """Write X, U, Z, Y and the layers' names; as safetensors if the name ends so, else as .npz.

    The file appears under its name only when it is whole.
    """
    target = Path(path)
    draft = target.with_name(target.name + ".part")
    target.parent.mkdir(parents=True, exist_ok=True)
    arrays = {key: np.ascontiguousarray(states[key]) for key in KEYS}
    try:
        if target.suffix == ".safetensors":
            from safetensors.numpy import save_file

            told = {f"layer.{i}": f"{x.start}:{x.stop}:{x.name}" for i, x in enumerate(layers)}
            save_file(arrays, draft, metadata=told)
        else:
            told_as_array = np.array([f"{x.start}:{x.stop}:{x.name}" for x in layers], dtype=str)
            with draft.open("wb") as file:
                np.savez(
                    file,
                    X=arrays["X"],
                    U=arrays["U"],
                    Z=arrays["Z"],
                    Y=arrays["Y"],
                    layers=told_as_array,
                )
        draft.replace(target)
    finally:
        draft.unlink(missing_ok=True)


def load_states(
    path: str | os.PathLike[str],
) -> tuple[dict[str, np.ndarray[Any, Any]], list[Layer]]:
    """Read what `save_states` wrote; the layers are empty where the file does not tell them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not a file of states.
    """
    source = Path(path)
    if not source.is_file():
        raise FileNotFoundError(f"no states file {source}")
    told: list[str] = []
    if zipfile.is_zipfile(source):
        with np.load(source, allow_pickle=False) as file:
            arrays = {key: file[key] for key in KEYS if key in file.files}
            told = [str(text) for text in file["layers"]] if "layers" in file.files else []
    else:
        arrays, told = _load_safetensors(source)
    missing = [key for key in KEYS if key not in arrays]
    if missing:
        raise ValueError(f"{source} has no {', '.join(missing)}: it is not a file of states")
    parts = (text.split(":", 2) for text in told)
    return arrays, [Layer(name, int(start), int(stop)) for start, stop, name in parts]


def _load_safetensors(source: Path) -> tuple[dict[str, np.ndarray[Any, Any]], list[str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(source, framework="np") as file:
            told = file.metadata() or {}
            order = sorted((k for k in told if k.startswith("layer.")), key=lambda k: int(k[6:]))
            return {key: file.get_tensor(key) for key in file.keys()}, [told[k] for k in order]  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(
            f"{source} is neither an .npz nor a safetensors file of states ({error}); a pickled "
            ".npy is not read, for it could run code"
        ) from None
