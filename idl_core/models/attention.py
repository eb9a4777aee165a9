"""Causal self-attention: head by head, and all heads at once."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def softmax_attention(k: Tensor, q: Tensor, v: Tensor, dropout: float = 0.0) -> Tensor:
    """Causal scaled dot-product attention: k, q, v and the result (..., T, h)."""
    if not q.numel():  # torch 2.11's kernel for CPUs divides by the number of samples
        return q @ k.mT @ v
    return F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=True)


class Head(nn.Module):
    """One explicit head of causal attention.

    Args:
        head_size, n_embd, block_size: as of `IDLHead`.
        dropout: of attention weights.
    """

    def __init__(self, head_size: int, n_embd: int, block_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.key = nn.Linear(n_embd, head_size, bias=False)
        self.query = nn.Linear(n_embd, head_size, bias=False)
        self.value = nn.Linear(n_embd, head_size, bias=False)
        self.block_size, self.dropout = block_size, dropout

    def forward(self, u: Tensor) -> Tensor:
        """(b, T, n_embd) -> (b, T, head_size), T ≤ block_size."""
        check_length(u, self.block_size)
        dropout = self.dropout if self.training else 0.0
        return softmax_attention(self.key(u), self.query(u), self.value(u), dropout)


class MultiHeadAttention(nn.Module):
    """Heads side by side, each a module of its own in `heads`, which may be replaced.

    Args:
        heads: modules (b, T, n_embd) -> (b, T, head_size).
        n_embd: features in and out.
        dropout: of the output.
    """

    def __init__(self, heads: Sequence[nn.Module], n_embd: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.heads = nn.ModuleList(heads)
        self.proj = nn.Linear(n_embd, n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, u: Tensor) -> Tensor:
        """(b, T, n_embd) -> (b, T, n_embd)."""
        out: Tensor = self.dropout(self.proj(torch.cat([head(u) for head in self.heads], -1)))
        return out


class CausalSelfAttention(nn.Module):
    """All explicit heads at once: one product for keys, queries and values.

    Args:
        n_embd, n_head, block_size: n_embd is a multiple of n_head.
        dropout: of attention weights and of the output.
    """

    def __init__(self, n_embd: int, n_head: int, block_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.n_head, self.block_size = n_head, block_size
        head_size_of(n_embd, n_head)
        self.kqv = nn.Linear(n_embd, 3 * n_embd, bias=False)
        self.proj = nn.Linear(n_embd, n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, u: Tensor) -> Tensor:
        """(b, T, n_embd) -> (b, T, n_embd), T ≤ block_size."""
        check_length(u, self.block_size)
        k, q, v = self.kqv(u).unflatten(-1, (3, self.n_head, -1)).permute(2, 0, 3, 1, 4)
        dropout = self.dropout.p if self.training else 0.0
        out = softmax_attention(k, q, v, dropout).transpose(1, 2).flatten(2)
        projected: Tensor = self.dropout(self.proj(out))
        return projected


def head_size_of(n_embd: int, n_head: int) -> int:
    """Features of each head. Raises: ValueError where heads do not share them evenly."""
    if n_head < 1 or n_embd % n_head:
        raise ValueError(f"n_embd ({n_embd}) must be a multiple of n_head ({n_head})")
    return n_embd // n_head


def check_length(u: Tensor, block_size: int) -> None:
    """Raise ValueError where u (b, T, n_embd) is longer than block_size."""
    if u.shape[1] > block_size:
        raise ValueError(f"a sequence of {u.shape[1]} is longer than block_size ({block_size})")
