"""Text as windows of tokens: Tiny Shakespeare, the user's own files, Python's own documentation."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self, cast

import numpy as np
import torch
from torch import Tensor

from ..dataset import Dataset
from ..digest import digest_of
from ..download import RemoteFile, obtain
from ..encoding import read_text
from ..errors import DatasetError, reason
from ..normalisation import Normalisation
from ..options import fraction, whole_number
from ..series.windows import rows_by_fraction
from ..source import Request, Source
from ..split import Split
from .tokenizer import Tokenizer, tokenizer_for

BLOCK_SIZE, TEST_FRACTION = 64, 0.1
_AS_IT_IS = Normalisation(torch.zeros(1), torch.ones(1))  # tokens are names, not quantities
SHAKESPEARE_FILE = "tinyshakespeare.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
SHAKESPEARE_MD5 = "6fb458f1232090904fb40fe944165e91"
SHAKESPEARE_URL = (
    "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)


@dataclass(frozen=True, eq=False)
class TextSplit(Split):
    """Windows of a text: x (m, block_size) tokens, y the token after each. Both share memory."""

    def batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (b, block_size) and the token after each, int64, of the windows at `index`."""
        return self.x.index_select(0, index).long(), self.y.index_select(0, index).long()

    def apart(self) -> Self:
        """Its windows that follow one another, as those of val and test do: each token once."""
        length, step = self.x.shape[1], self.x.stride(0)
        every = max(1, length // step)
        return replace(self, x=self.x[::every], y=self.y[::every])

    def to(self, device: torch.device | str) -> Self:
        """The same split on `device`; there, too, windows share the memory of the text."""
        if self.x.device == torch.device(device):
            return self
        length, step = self.x.shape[1], self.x.stride(0)
        base = self.x.as_strided(((len(self) - 1) * step + length + 1,), (1,))
        moved = _windows(base.to(device), length, step)
        return replace(self, x=moved.x, y=moved.y)


@dataclass(frozen=True, eq=False)
class TextDataset(Dataset):
    """A text in windows; `output_dim` is the size of the vocabulary, `input_shape` (block_size,).

    tokenizer: encodes a prompt and decodes what a model says
    chars_per_token: characters of the whole text over its tokens
    """

    tokenizer: Tokenizer = field(kw_only=True)
    chars_per_token: float = 1.0


def _windows(tokens: Tensor, length: int, step: int) -> TextSplit:
    x, y = tokens[:-1].unfold(0, length, step), tokens[1:].unfold(0, length, step)
    return TextSplit(x, y, _AS_IT_IS)


def text_dataset(request: Request, text: str) -> TextDataset:
    """The data set of a text: the last tenth is test, of the rest the last val_fraction is val.

    A window of train may start at any token; those of val and test follow one another, so that
    no token counts twice; what is left at their end, shorter than a window, is left out.

    Raises DatasetError where a part is shorter than a window.
    """
    block_size = whole_number(request, "block_size", BLOCK_SIZE)
    test_fraction = fraction(request, "test_fraction", TEST_FRACTION)
    tokenizer = _tokenizer(request, text)
    kind = np.uint8 if tokenizer.size <= 256 else np.int32
    try:
        tokens = torch.from_numpy(np.array(tokenizer.encode(text), dtype=kind))
    except DatasetError as error:  # a tokenizer that was made for another text
        raise DatasetError(f"{request.name}: {error}") from None
    rows = rows_by_fraction(len(tokens), request.val_fraction, test_fraction)
    parts = dict(zip(("train", "val", "test"), tokens.split(rows), strict=True))
    for name, part in parts.items():
        if len(part) <= block_size and not (name == "val" and request.val_fraction == 0):
            raise DatasetError(
                f"{request.name}: {name} has {len(part):,} of {len(tokens):,} tokens, too few for "
                f"block_size={block_size}: give a longer text or a smaller block_size."
            )
    val = _windows(parts["val"], block_size, block_size) if len(parts["val"]) else None
    return TextDataset(
        name=request.name,
        train=_windows(parts["train"], block_size, 1),
        val=val,
        test=_windows(parts["test"], block_size, block_size),
        task="language",
        input_shape=(block_size,),
        output_dim=tokenizer.size,
        class_names=(),
        tokenizer=tokenizer,
        chars_per_token=len(text) / max(1, len(tokens)),
        digest=digest_of(text),
    )


def _tokenizer(request: Request, text: str) -> Tokenizer:
    """The one that was given as it is, or the one of a name made for the text."""
    given = request.options.get("tokenizer", "characters")
    return tokenizer_for(given, text) if isinstance(given, str) else cast(Tokenizer, given)


def _load_shakespeare(request: Request) -> Dataset:
    path = request.path or request.root / SHAKESPEARE_FILE
    if request.path is None and not path.is_file():
        file = RemoteFile(SHAKESPEARE_FILE, [SHAKESPEARE_URL], SHAKESPEARE_MD5)
        obtain(request, request.root, [file])
    data = _bytes(path)
    if hashlib.sha256(data).hexdigest() != SHAKESPEARE_SHA256:
        own = f"read it as data=text data.path={path}"
        again = own if request.path else f"move it away and get it again, or {own}"
        raise DatasetError(
            f"{path} is not Tiny Shakespeare: its SHA-256 is not {SHAKESPEARE_SHA256}; {again}."
        )
    return text_dataset(request, data.decode("ascii"))


def _load_text(request: Request) -> Dataset:
    path = request.path
    assert path is not None  # the registry has seen to it
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.is_file() and not _is_hidden(p, path))
        if not files:
            raise DatasetError(f"{path} has no files: set data.path to UTF-8 text.")
    else:
        files = [path]
    return text_dataset(request, "\n".join(read_text(file) for file in files))


def _load_pydoc(request: Request) -> Dataset:
    from pydoc_data import topics  # a megabyte: only where it is used

    return text_dataset(request, "\n".join(topics.topics[name] for name in sorted(topics.topics)))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {reason(error)}.") from None


def _is_hidden(file: Path, folder: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(folder).parts)


_OPTIONS = ("block_size", "tokenizer", "test_fraction")

SHAKESPEARE = Source(
    help="Tiny Shakespeare, 1,115,394 characters; downloads 1 MB once, or path = the file",
    load=_load_shakespeare,
    is_ready=lambda root: (root / SHAKESPEARE_FILE).is_file(),
    kind="text",
    takes_path=True,
    options=_OPTIONS,
)
TEXT = Source(
    help="your own text: path = a UTF-8 file, or a folder of them; works offline",
    load=_load_text,
    is_ready=lambda root: False,
    kind="text",
    needs_path=True,
    options=_OPTIONS,
)
PYDOC = Source(
    help="the topics of Python's own help(), half a MB of text; embedded in Python, works offline",
    load=_load_pydoc,
    is_ready=lambda root: True,
    kind="text",
    embedded=True,
    options=_OPTIONS,
)
