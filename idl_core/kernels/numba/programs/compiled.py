"""The decorator of what numba compiles here, where that is kept on disk, and arrays at addresses.

numba's own cache looks at a function's file alone, so that a changed function in another file,
which was compiled into it, would go unnoticed; and of two processes that compile at once, one may
leave an index that takes the code of one type for that of another. Where it cannot be kept (of a
folder that cannot be written, a full disk), what was compiled runs all the same.
"""

from __future__ import annotations

import contextlib
import fcntl
import pickle
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba import carray, njit, types
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.extending import intrinsic


def compiled(*, entry: bool = False, **options: Any) -> Callable[[Callable[..., Any]], Any]:
    """`numba.njit` without Python's lock, with numba's options; kept for the next process.

    entry: whether it is called from Python too. The others are not given the wrappers that this
        takes, and are compiled faster by a fifth.
    """
    inner = {} if entry else {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}

    def compile_when_called(function: Callable[..., Any]) -> Any:
        dispatcher = njit(nogil=True, **inner, **options)(function)
        try:
            dispatcher._cache = _Cache(function)
        except (OSError, RuntimeError) as error:  # RuntimeError: no folder can be written
            _warn_not_kept(str(error))
        return dispatcher

    return compile_when_called


# Of a file that was cut short, or is another user's: as if it were not there.
_NOT_READ = (OSError, EOFError, pickle.UnpicklingError)


class _Cache(FunctionCache):
    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)
        self._cache_file = _CacheFile(self._cache_path, self._impl.filename_base, _sources())

    def load_overload(self, *arguments: Any) -> Any:
        try:
            return super().load_overload(*arguments)
        except _NOT_READ:
            return None

    def save_overload(self, *arguments: Any) -> None:
        try:
            super().save_overload(*arguments)
        except OSError as error:
            _warn_not_kept(f"{self._cache_path}: {error.strerror or error}")


class _CacheFile(IndexDataCacheFile):
    """An index and the code it names, read and written by one process at a time."""

    def load(self, key: Any) -> Any:
        with self._alone():
            return super().load(key)

    def save(self, key: Any, data: Any) -> None:
        with self._alone():
            try:
                super().save(key, data)
            except OSError:
                # The index may name a file that was not written, or one of other code.
                with contextlib.suppress(OSError):
                    Path(self._index_path).unlink()
                raise

    def _load_index(self) -> Any:
        try:
            return super()._load_index()
        except _NOT_READ:
            return {}

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        with contextlib.ExitStack() as stack:
            with contextlib.suppress(OSError):  # a file system without locks, another user's file
                path = Path(self._cache_path) / "idl_compiled.lock"
                fcntl.flock(stack.enter_context(open(path, "a")), fcntl.LOCK_EX)
            yield


@cache
def _warn_not_kept(why: str) -> None:
    """Warn, once for each reason, that the next process will compile anew."""
    warnings.warn(
        f"what numba compiles cannot be kept on disk, and is compiled in each process: {why}. "
        "NUMBA_CACHE_DIR names another folder.",
        RuntimeWarning,
        stacklevel=2,
    )


@cache
def _sources() -> str:
    """A digest of all that may have been compiled into a function of this folder."""
    files = sorted(Path(__file__).parent.glob("*.py"))
    return sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


@intrinsic
def _pointer(_: Any, address: Any, like: Any) -> Any:
    """To numbers of the type of `like`."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.inttoptr(values[0], context.get_value_type(signature.return_type))

    return types.CPointer(like)(types.int64, like), generate


@compiled()
def at(address: int, shape: Any, like: Any) -> Any:
    """The contiguous array at an address, of that shape and of numbers of the type of `like`.

    A tensor's address is a number. In a training step of a small model it takes longer to make a
    NumPy array of each tensor than to do the mathematics.
    """
    return carray(_pointer(address, like), shape)
