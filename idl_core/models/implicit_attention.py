"""Causal self-attention as an equilibrium: head by head, and all heads at once.

The state of an implicit head is X = [k, q, v, out], four parts of `head_size` at each position:

    pre = X A + u B                    the three parts that attention reads: k, q, v
    X  <- [pre, attention(pre)]        from X = 0

A (4h, 3h) is kept within ‖A‖∞ ≤ 0.95 by the row-wise projection of `idl_core.wellposed`, and
B (n_embd, 3h) is what an explicit head's key, query and value matrices are. The first iteration is
therefore ordinary attention; each further one lets keys, queries and values answer to what was
attended to. A fixed number of iterations is differentiated through; otherwise the equilibrium is
solved to a tolerance and differentiated by the implicit function theorem, in the memory of one.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from idl_core.equilibrium import Anderson, Implicit, Picard, fixed_point
from idl_core.equilibrium.transforms import refuse_transforms
from idl_core.models.attention import (
    MultiHeadAttention,
    check_length,
    head_size_of,
    softmax_attention,
)
from idl_core.wellposed import low_rank_product, project_rows

KAPPA = 0.95
"""Bound on ‖A‖∞ of an implicit head."""

ATTENTION_VERSIONS = ("softmax", "lipschitz")
_LIPSCHITZ_FLOOR = 0.25


def lipschitz_attention(k: Tensor, q: Tensor, v: Tensor) -> Tensor:
    """Causal attention by distance: k, q, v and the result (..., T, h).

    Position i gives j ≤ i the weight exp(-|q_i - k_j|²) / (1/4 + Σ_j exp(-|q_i - k_j|²)), and
    values are v / √(v² + 1): bounded whatever the inputs.
    """
    distance = torch.matmul(q, k.mT).mul(-2)
    distance = distance + q.square().sum(-1, keepdim=True) + k.square().sum(-1).unsqueeze(-2)
    future = torch.ones(q.shape[-2], k.shape[-2], dtype=torch.bool, device=q.device).triu(1)
    # A distance can come out below 0 by rounding, where its gradient is as good as 0.
    weight = torch.exp(-distance.clamp(min=0)).masked_fill(future, 0.0)
    weight = weight / (_LIPSCHITZ_FLOOR + weight.sum(-1, keepdim=True))
    return torch.matmul(weight, v * torch.rsqrt(v.square() + 1))


@dataclass(frozen=True)
class AttentionSettings:
    """Settings of an implicit attention head, and so of every head of an implicit GPT.

    Attributes:
        fixed_point_iter: iterations from X = 0, differentiated through; None: to the tolerance,
            with the implicit adjoint.
        attention_version: "softmax" or "lipschitz".
        is_low_rank: A = L Rᵀ with L (4h, rank) and R (3h, rank), h the head size.
        rank: needed with a low rank.
        tol, mitr: tolerance and most iterations of the solve to tolerance.

    Raises:
        ValueError: a setting out of range.
    """

    fixed_point_iter: int | None = 2
    attention_version: str = "softmax"
    is_low_rank: bool = False
    rank: int | None = None
    tol: float = 3e-6
    mitr: int = 300

    def __post_init__(self) -> None:
        if self.attention_version not in ATTENTION_VERSIONS:
            raise ValueError(
                f"attention_version must be one of {', '.join(ATTENTION_VERSIONS)}, "
                f"not {self.attention_version!r}"
            )
        if self.fixed_point_iter is not None and self.fixed_point_iter < 1:
            raise ValueError(f"fixed_point_iter must be at least 1, not {self.fixed_point_iter!r}")

    @classmethod
    def of(cls, settings: AttentionSettings | None, **given: Any) -> AttentionSettings:
        """`settings`, the defaults where that is None, with those that are given by name.

        Raises: TypeError where `settings` is something else or a name is unknown; ValueError.
        """
        if not isinstance(settings, AttentionSettings | None):
            raise TypeError(f"settings of heads must be AttentionSettings, not {settings!r}")
        return replace(settings or cls(), **given)


class _Equilibrium(nn.Module):
    """`n_head` implicit heads of one size, solved as one."""

    def __init__(
        self, head_size: int, n_embd: int, n_head: int, settings: AttentionSettings
    ) -> None:
        super().__init__()
        self.head_size, self.settings = head_size, settings
        self.solver = Picard(settings.tol, settings.mitr, then=Anderson())
        h, rank = head_size, settings.rank
        if settings.is_low_rank:
            if rank is None or not 1 <= rank <= 3 * h:
                raise ValueError(f"rank must be in 1..{3 * h} (3 head_size), not {rank!r}")
            self.L = nn.Parameter(torch.randn(n_head, 4 * h, rank) / (2 * rank))
            self.R = nn.Parameter(torch.randn(n_head, 3 * h, rank) / (3 * h))
        else:
            # Row sums start near 0.4, within the ball.
            self.A = nn.Parameter(torch.randn(n_head, 4 * h, 3 * h) / (6 * h))
        self.B = nn.Parameter(0.02 * torch.randn(n_head, n_embd, 3 * h))

    def effective_A(self) -> Tensor:
        """A of each head (n_head, 4h, 3h) after its constraint."""
        if not self.settings.is_low_rank:
            return project_rows(self.A.flatten(0, 1), KAPPA).view_as(self.A)
        L, R = self._factors()
        return low_rank_product(L, R)

    def _factors(self) -> tuple[Tensor, Tensor]:
        """L and R with ‖L‖∞ ≤ κ and ‖Rᵀ‖∞ ≤ 1 for each head, so that ‖L Rᵀ‖∞ ≤ κ."""
        L = project_rows(self.L.flatten(0, 1), KAPPA).view_as(self.L)
        R = project_rows(self.R.mT.flatten(0, 1), 1.0).view_as(self.R.mT).mT
        return L, R

    def _attend(self, pre: Tensor) -> Tensor:
        k, q, v = pre.split(self.head_size, -1)
        if self.settings.attention_version == "softmax":
            return softmax_attention(k, q, v)
        return lipschitz_attention(k, q, v)

    def forward(self, u: Tensor) -> Tensor:
        """`out` of each head (n_head, b, T, h) for u (b, T, n_embd)."""
        b, T, _ = u.shape
        n_head = len(self.B)
        # All heads' B side by side: one product.
        Z = u.flatten(0, 1) @ self.B.transpose(0, 1).flatten(1)
        Z = Z.view(b * T, n_head, 3 * self.head_size).transpose(0, 1)
        iterations, low_rank = self.settings.fixed_point_iter, self.settings.is_low_rank
        if iterations == 1:  # A has no part in it
            unused = (self.L, self.R) if low_rank else (self.A,)
            out: Tensor = _WithoutEffect.apply(self._attend(Z.unflatten(1, (b, T))), *unused)
            return out
        right = self.effective_A() if not low_rank else None
        left, middle = self._factors() if low_rank else (right, None)
        assert left is not None
        if iterations is None:
            return self._solve(Z.unflatten(1, (b, T)), left, middle)
        pre = Z
        out = self._attend(pre.unflatten(1, (b, T)))
        for _ in range(iterations - 1):
            pre = _next(Z, pre, out.flatten(1, 2), left, middle)
            out = self._attend(pre.unflatten(1, (b, T)))
        return out

    def _solve(self, Z: Tensor, left: Tensor, middle: Tensor | None) -> Tensor:
        """`out` at the equilibrium, for Z (n_head, b, T, 3h); solved in float32 at least."""
        refuse_transforms(Z, left, middle)
        working = torch.promote_types(Z.dtype, torch.float32)
        # On the meta device there is no autocast.
        with nullcontext() if Z.is_meta else torch.autocast(Z.device.type, enabled=False):
            middle = None if middle is None else middle.to(working)
            return self._solve_in(Z.to(working), left.to(working), middle).to(Z.dtype)

    def _solve_in(self, Z: Tensor, left: Tensor, middle: Tensor | None) -> Tensor:
        h = self.head_size
        b, T = Z.shape[1:3]
        flat = Z.flatten(1, 2)

        def step(X: Tensor) -> Tensor:  # (b, n_head, T, 4h): samples come first
            state = X.transpose(0, 1).flatten(1, 2)
            pre = _next(flat, state[..., : 3 * h], state[..., 3 * h :], left, middle)
            pre = pre.unflatten(1, (b, T))
            return torch.cat((pre, self._attend(pre)), -1).transpose(0, 1)

        with torch.no_grad():  # where two iterations of X = 0 begin
            start = torch.cat((Z, self._attend(Z)), -1).transpose(0, 1).contiguous()
        X = fixed_point(step, start, self.solver, Implicit()).value
        return X.transpose(0, 1)[..., 3 * h :]


def _next(Z: Tensor, pre: Tensor, out: Tensor, left: Tensor, middle: Tensor | None) -> Tensor:
    """Z + [pre, out] A for each head: Z and pre (H, m, 3h), out (H, m, h), A = left middleᵀ."""
    h = out.shape[-1]
    if middle is None:
        return torch.baddbmm(torch.baddbmm(Z, pre, left[:, : 3 * h]), out, left[:, 3 * h :])
    small = torch.baddbmm(torch.bmm(out, left[:, 3 * h :]), pre, left[:, : 3 * h])
    return torch.baddbmm(Z, small, middle.mT)


class _WithoutEffect(torch.autograd.Function):
    """Its first argument; the gradient of the others, which have no effect on it, is 0: training on
    several devices waits for the gradient of every parameter."""

    @staticmethod
    def forward(out: Tensor, *parameters: Tensor) -> Tensor:
        return out.view_as(out)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(*inputs[1:])
        ctx.save_for_forward(*inputs[1:])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, ...]:
        return grad, *(torch.zeros_like(parameter) for parameter in ctx.saved_tensors)

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor, *tangents: Tensor) -> Tensor:
        return tangent.view_as(tangent)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[int | None, ...], out: Tensor, *rest: Tensor) -> Any:
        return out, in_dims[0]


class IDLHead(_Equilibrium):
    """One head whose output is an equilibrium.

    Args:
        head_size: h.
        n_embd: features of the input.
        block_size: longest sequence.
        fixed_point_iter, attention_version, is_low_rank, rank: see `AttentionSettings`.
        **given: its other settings, by name, `tol` and `mitr`.

    Raises:
        ValueError: a setting out of range.
        TypeError: no such setting.
    """

    def __init__(
        self,
        head_size: int,
        n_embd: int,
        block_size: int,
        fixed_point_iter: int | None = AttentionSettings.fixed_point_iter,
        attention_version: str = AttentionSettings.attention_version,
        is_low_rank: bool = AttentionSettings.is_low_rank,
        rank: int | None = AttentionSettings.rank,
        **given: Any,
    ) -> None:
        settings = AttentionSettings(
            fixed_point_iter, attention_version, is_low_rank, rank, **given
        )
        super().__init__(head_size, n_embd, 1, settings)
        self.block_size = block_size

    @classmethod
    def from_settings(
        cls, head_size: int, n_embd: int, block_size: int, settings: AttentionSettings
    ) -> IDLHead:
        """The head with all its settings in one object."""
        return cls(head_size, n_embd, block_size, **vars(settings))

    def forward(self, u: Tensor) -> Tensor:
        """(b, T, n_embd) -> (b, T, head_size), T ≤ block_size."""
        check_length(u, self.block_size)
        return super().forward(u)[0]


class ImplicitAttention(nn.Module):
    """All implicit heads at once, in one batched solve: the same numbers as a list of `IDLHead`s.

    Args:
        n_embd, n_head, block_size: n_embd is a multiple of n_head.
        dropout: of the output.
        settings: all settings of the heads; None: the defaults.
        **given: single settings by name, as in `fixed_point_iter=3`: they go before `settings`.

    Raises:
        ValueError: a size or setting out of range.
        TypeError: no such setting.
    """

    def __init__(
        self,
        n_embd: int,
        n_head: int,
        block_size: int,
        dropout: float = 0.0,
        settings: AttentionSettings | None = None,
        **given: Any,
    ) -> None:
        super().__init__()
        self.block_size = block_size
        size = head_size_of(n_embd, n_head)
        self.equilibrium = _Equilibrium(
            size, n_embd, n_head, AttentionSettings.of(settings, **given)
        )
        self.proj = nn.Linear(n_embd, n_embd)
        self.dropout = nn.Dropout(dropout)

    def forward(self, u: Tensor) -> Tensor:
        """(b, T, n_embd) -> (b, T, n_embd), T ≤ block_size."""
        check_length(u, self.block_size)
        out = self.equilibrium(u).permute(1, 2, 0, 3).flatten(2)
        projected: Tensor = self.dropout(self.proj(out))
        return projected

    @classmethod
    def from_heads(cls, attention: MultiHeadAttention) -> ImplicitAttention:
        """The fused form of a list of `IDLHead`s with the same settings, weights copied."""
        heads = [head for head in attention.heads if isinstance(head, IDLHead)]
        if len(heads) != len(attention.heads) or not heads:
            raise ValueError("every head must be an IDLHead")
        alike = {(head.settings, head.B.shape, head.block_size) for head in heads}
        if len(alike) > 1:
            raise ValueError("the heads' settings differ")
        first = heads[0]
        n_embd, dropout = first.B.shape[1], attention.dropout.p
        fused = cls(n_embd, len(heads), first.block_size, dropout, first.settings).to(first.B)
        weights = [dict(head.named_parameters()) for head in heads]
        with torch.no_grad():
            for name, parameter in fused.equilibrium.named_parameters():
                parameter.copy_(torch.cat([weight[name] for weight in weights]))
        fused.proj.load_state_dict(attention.proj.state_dict())
        return fused.train(attention.training)

    def to_heads(self) -> MultiHeadAttention:
        """The same attention as a list of `IDLHead`s, weights copied."""
        own = self.equilibrium
        n_head, n_embd, _ = own.B.shape
        heads = []
        for number in range(n_head):
            head = IDLHead.from_settings(own.head_size, n_embd, self.block_size, own.settings)
            head = head.to(own.B)
            with torch.no_grad():
                weights = dict(own.named_parameters())
                for name, parameter in head.named_parameters():
                    parameter.copy_(weights[name][number : number + 1])
            heads.append(head)
        listed = MultiHeadAttention(heads, n_embd, self.dropout.p).to(own.B)
        listed.proj.load_state_dict(self.proj.state_dict())
        return listed.train(self.training)
