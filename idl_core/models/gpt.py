"""A small GPT: the explicit baseline, and the one whose attention heads are equilibria."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from idl_core.models.attention import (
    CausalSelfAttention,
    Head,
    MultiHeadAttention,
    head_size_of,
)
from idl_core.models.implicit_attention import AttentionSettings, ImplicitAttention

_INITIAL_DEVIATION = 0.02


class FeedForward(nn.Module):
    """Two linear layers with GELU between them, four times as wide inside."""

    def __init__(self, n_embd: int, dropout: float) -> None:
        super().__init__()
        self.wide = nn.Linear(n_embd, 4 * n_embd)
        self.proj = nn.Linear(4 * n_embd, n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(b, T, n_embd) -> (b, T, n_embd)."""
        out: Tensor = self.dropout(self.proj(F.gelu(self.wide(x))))
        return out


class Block(nn.Module):
    """A transformer block: attention, then a feed-forward part, each added to what it reads."""

    def __init__(self, n_embd: int, attention: nn.Module, dropout: float) -> None:
        super().__init__()
        self.sa = attention
        self.ffwd = FeedForward(n_embd, dropout)
        self.ln1 = nn.LayerNorm(n_embd)
        self.ln2 = nn.LayerNorm(n_embd)

    def forward(self, x: Tensor) -> Tensor:
        """(b, T, n_embd) -> (b, T, n_embd)."""
        x = x + self.sa(self.ln1(x))
        out: Tensor = x + self.ffwd(self.ln2(x))
        return out


@dataclass(frozen=True)
class GPTSettings:
    """Sizes of a GPT, explicit or implicit.

    Attributes:
        vocab_size: number of different tokens.
        n_embd: width, a multiple of n_head.
        block_size: longest context.
        n_layer, n_head: blocks, and heads in each.
        dropout: of embeddings, attention weights and what the parts of a block give.

    Raises:
        ValueError: a size out of range.
    """

    vocab_size: int
    n_embd: int
    block_size: int
    n_layer: int
    n_head: int
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for name in ("vocab_size", "n_embd", "block_size", "n_layer"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, not {getattr(self, name)!r}")
        head_size_of(self.n_embd, self.n_head)


class _Transformer(nn.Module):
    """The transformer that the models below share; the architecture of GPT-2.

    Args:
        settings: its sizes.
        attention: makes the attention of a block.
    """

    def __init__(self, settings: GPTSettings, attention: Callable[[], nn.Module]) -> None:
        super().__init__()
        self.settings = settings
        n_embd, block_size, dropout = settings.n_embd, settings.block_size, settings.dropout
        vocab_size, n_layer = settings.vocab_size, settings.n_layer
        self.vocab_size, self.block_size = vocab_size, block_size
        self.token_embedding_table = nn.Embedding(vocab_size, n_embd)
        self.position_embedding_table = nn.Embedding(block_size, n_embd)
        self.dropout = nn.Dropout(dropout)
        self.blocks = nn.Sequential(*(Block(n_embd, attention(), dropout) for _ in range(n_layer)))
        self.ln_f = nn.LayerNorm(n_embd)
        self.lm_head = nn.Linear(n_embd, vocab_size)
        self.apply(_initialise)
        for name, parameter in self.named_parameters():
            # What is added to the residual stream by each of 2 n_layer parts, as in GPT-2.
            if name.endswith("proj.weight"):
                nn.init.normal_(parameter, std=_INITIAL_DEVIATION / math.sqrt(2 * n_layer))

    def scores(self, idx: Tensor) -> Tensor:
        """Scores of every next token (b, T, vocab_size) for tokens idx (b, T), T ≤ block_size."""
        T = idx.shape[1]
        if self.block_size < T:
            raise ValueError(f"a sequence of {T} is longer than block_size ({self.block_size})")
        positions = torch.arange(T, device=idx.device)
        x = self.token_embedding_table(idx) + self.position_embedding_table(positions)
        x = self.ln_f(self.blocks(self.dropout(x)))
        scores: Tensor = self.lm_head(x)
        return scores

    def stream(
        self,
        idx: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Iterator[Tensor]:
        """Yields one token after another (b, 1); arguments as of `generate`."""
        if idx.shape[1] < 1:
            raise ValueError("generation needs at least one token to start from")
        if temperature < 0:
            raise ValueError(f"temperature must not be negative, not {temperature!r}")
        if top_k is not None and top_k < 1:
            raise ValueError(f"top_k must be at least 1, not {top_k!r}")
        for _ in range(max_new_tokens):
            with torch.no_grad():
                scores = self.scores(idx[:, -self.block_size :])[:, -1].float()
                token = _draw(scores, temperature, top_k, generator)
            idx = torch.cat((idx, token), 1)
            yield token

    @torch.no_grad()
    def generate(
        self,
        idx: Tensor,
        max_new_tokens: int,
        temperature: float = 1.0,
        top_k: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Continue sequences of tokens; the model sees the last block_size of them.

        Call `eval()` first where there is dropout.

        Args:
            idx: (b, T), T ≥ 1.
            max_new_tokens: how many to add.
            temperature: what scores are divided by; 0 takes the best token.
            top_k: draw from the k best only.
            generator: of the drawing; None: torch's global one.

        Returns:
            (b, T + max_new_tokens).

        Raises:
            ValueError: an argument out of range.
        """
        new = list(self.stream(idx, max_new_tokens, temperature, top_k, generator))
        return torch.cat((idx, *new), 1)


class GPT(_Transformer):
    """The explicit GPT: token scores from tokens, all heads at once.

    Args:
        vocab_size: number of different tokens.
        n_embd: width, a multiple of n_head.
        block_size: longest context.
        n_layer, n_head: blocks, and heads in each.
        dropout: of embeddings, attention weights and what the parts of a block give.

    Raises:
        ValueError: a size out of range.
    """

    __call__: Callable[..., Tensor]  # of nn.Module, which does not say what forward returns

    def __init__(
        self,
        vocab_size: int,
        n_embd: int,
        block_size: int,
        n_layer: int,
        n_head: int,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(
            GPTSettings(vocab_size, n_embd, block_size, n_layer, n_head, dropout),
            lambda: CausalSelfAttention(n_embd, n_head, block_size, dropout),
        )

    def forward(self, idx: Tensor) -> Tensor:
        """(b, T) tokens -> (b, T, vocab_size) scores."""
        return self.scores(idx)


class ImplicitGPT(_Transformer):
    """The GPT whose attention heads are equilibria, all heads of a block in one batched solve.

    Equal to `GPT` in everything but the attention.

    Args:
        vocab_size, n_embd, block_size, n_layer, n_head, dropout: as of `GPT`.
        attention: all settings of the heads; None: the defaults.
        **given: single settings of the heads by name, as in `fixed_point_iter=3`: they go before
            `attention`.

    Raises:
        ValueError: a size or setting out of range.
        TypeError: no such setting.
    """

    __call__: Callable[..., Tensor]  # of nn.Module, which does not say what forward returns

    def __init__(
        self,
        vocab_size: int,
        n_embd: int,
        block_size: int,
        n_layer: int,
        n_head: int,
        dropout: float = 0.0,
        attention: AttentionSettings | None = None,
        **given: Any,
    ) -> None:
        heads = AttentionSettings.of(attention, **given)
        super().__init__(
            GPTSettings(vocab_size, n_embd, block_size, n_layer, n_head, dropout),
            lambda: ImplicitAttention(n_embd, n_head, block_size, dropout, heads),
        )

    def forward(self, idx: Tensor) -> Tensor:
        """(b, T) tokens -> (b, T, vocab_size) scores."""
        return self.scores(idx)


class GPTLanguageModel(_Transformer):
    """A GPT whose heads are modules of their own, `blocks[i].sa.heads`, and may be replaced.

    Args: as of `GPT`.
    """

    __call__: Callable[..., tuple[Tensor, Tensor | None]]

    def __init__(
        self,
        vocab_size: int,
        n_embd: int,
        block_size: int,
        n_layer: int,
        n_head: int,
        dropout: float = 0.0,
    ) -> None:
        settings = GPTSettings(vocab_size, n_embd, block_size, n_layer, n_head, dropout)
        size = n_embd // n_head

        def attention() -> MultiHeadAttention:
            heads = [Head(size, n_embd, block_size, dropout) for _ in range(n_head)]
            return MultiHeadAttention(heads, n_embd, dropout)

        super().__init__(settings, attention)

    def forward(self, idx: Tensor, targets: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Scores, and their mean cross-entropy with the targets.

        Args:
            idx: (b, T) tokens, T ≤ block_size.
            targets: (b, T), the token after each; None: no loss.

        Returns:
            Scores (b, T, vocab_size), and the loss in nats or None.
        """
        scores = self.scores(idx)
        if targets is None:
            return scores, None
        return scores, F.cross_entropy(scores.flatten(0, 1), targets.flatten())


def _initialise(module: nn.Module) -> None:
    if isinstance(module, nn.Linear | nn.Embedding):
        nn.init.normal_(module.weight, std=_INITIAL_DEVIATION)
    if isinstance(module, nn.Linear) and module.bias is not None:
        nn.init.zeros_(module.bias)


def _draw(
    scores: Tensor, temperature: float, top_k: int | None, generator: torch.Generator | None
) -> Tensor:
    """One token (b, 1) for scores (b, v)."""
    if temperature < torch.finfo(scores.dtype).tiny:  # 0, or nothing to divide by
        return scores.argmax(-1, keepdim=True)
    # The best is 0 beforehand: a quotient may overflow to -inf, never to inf.
    scores = (scores - scores.amax(-1, keepdim=True)) / temperature
    if top_k is not None and top_k < scores.shape[-1]:
        least = scores.topk(top_k).values[:, -1:]
        scores = scores.masked_fill(scores < least, -math.inf)
    return torch.multinomial(scores.softmax(-1), 1, generator=generator)
