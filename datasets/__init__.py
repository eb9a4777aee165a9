"""Data sets, decoded once and kept in memory: see `load` and `names`."""

from .dataset import Dataset
from .errors import DatasetError
from .normalisation import Normalisation
from .registry import default_root, embedded_like, is_ready, load, names, needs_path
from .series.windows import SeriesDataset
from .split import Split
from .texts.text import TextDataset, TextSplit
from .texts.tokenizer import CharacterTokenizer, Tokenizer, tokenizer_from_state

__all__ = [
    "CharacterTokenizer",
    "Dataset",
    "DatasetError",
    "Normalisation",
    "SeriesDataset",
    "Split",
    "TextDataset",
    "TextSplit",
    "Tokenizer",
    "default_root",
    "embedded_like",
    "is_ready",
    "load",
    "names",
    "needs_path",
    "tokenizer_from_state",
]
