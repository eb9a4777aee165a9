"""Data sets, decoded once and kept in memory: see `load` and `names`."""

from .dataset import Dataset
from .errors import DatasetError
from .registry import default_root, is_ready, load, names, needs_path
from .split import Split

__all__ = [
    "Dataset",
    "DatasetError",
    "Split",
    "default_root",
    "is_ready",
    "load",
    "names",
    "needs_path",
]
