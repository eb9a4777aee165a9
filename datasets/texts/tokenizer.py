"""Text as numbers: by character, or by GPT-2's byte pairs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from ..errors import DatasetError, reason

GPT2_SIZE = 50_257


class Tokenizer(Protocol):
    """Encodes text as numbers below `size`, and back; `state` is JSON-like and makes it again."""

    @property
    def size(self) -> int: ...

    def encode(self, text: str) -> list[int]:
        """Raises DatasetError where the text has what the vocabulary lacks."""

    def decode(self, tokens: Iterable[int]) -> str: ...

    def state(self) -> dict[str, str]: ...


class CharacterTokenizer:
    """One number a character, in the order of their code points.

    characters: the vocabulary, in order
    """

    def __init__(self, characters: Sequence[str]) -> None:
        self._characters = list(characters)
        self._numbers = {character: number for number, character in enumerate(self._characters)}

    @classmethod
    def of(cls, text: str) -> CharacterTokenizer:
        """The tokenizer whose vocabulary is the characters of a text."""
        return cls(sorted(set(text)))

    @property
    def size(self) -> int:
        return len(self._characters)

    def encode(self, text: str) -> list[int]:
        try:
            return [self._numbers[character] for character in text]
        except KeyError as error:
            character = error.args[0]
            raise DatasetError(
                f"the character {character!r} (U+{ord(character):04X}, position "
                f"{text.index(character)}) is not in the vocabulary of {self.size} characters: "
                f"{''.join(self._characters)!r}."
            ) from None

    def decode(self, tokens: Iterable[int]) -> str:
        return "".join(self._characters[token] for token in tokens)

    def state(self) -> dict[str, str]:
        return {"kind": "characters", "characters": "".join(self._characters)}


class GPT2Tokenizer:
    """The byte pairs of GPT-2, through tiktoken, which fetches its table when first used."""

    def __init__(self) -> None:
        try:
            import tiktoken  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise DatasetError(
                "data.tokenizer=gpt2 needs tiktoken: pip install 'idl[gpt2]', or use "
                "data.tokenizer=characters."
            ) from None
        try:
            self._encoding = tiktoken.get_encoding("gpt2")
        except Exception as error:  # whatever its download raises
            raise DatasetError(
                f"tiktoken has no table of gpt2 and cannot fetch it: {reason(error)}."
            ) from None

    @property
    def size(self) -> int:
        return GPT2_SIZE

    def encode(self, text: str) -> list[int]:
        return list(self._encoding.encode_ordinary(text))

    def decode(self, tokens: Iterable[int]) -> str:
        return str(self._encoding.decode(list(tokens)))

    def state(self) -> dict[str, str]:
        return {"kind": "gpt2"}


def tokenizer_for(kind: str, text: str) -> Tokenizer:
    """The tokenizer named `kind` ("characters" or "gpt2") for a text."""
    if kind == "characters":
        return CharacterTokenizer.of(text)
    if kind == "gpt2":
        return GPT2Tokenizer()
    raise DatasetError(f"data.tokenizer={kind}: choose characters or gpt2.")


def tokenizer_from_state(state: object) -> Tokenizer:
    """The tokenizer that gave this `state()`. Raises DatasetError where it is none."""
    if isinstance(state, dict):
        if state.get("kind") == "gpt2":
            return GPT2Tokenizer()
        characters = state.get("characters")
        if state.get("kind") == "characters" and isinstance(characters, str):
            return CharacterTokenizer(characters)
    raise DatasetError("the tokenizer that was saved is damaged: kind and characters are missing.")
