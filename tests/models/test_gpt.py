"""The language models: their interfaces, generation, and that they learn."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from idl_core import GPT, GPTLanguageModel, IDLHead, ImplicitGPT
from idl_core.training import TASKS

SIZES = {"vocab_size": 11, "n_embd": 12, "block_size": 8, "n_layer": 2, "n_head": 3}
MODELS = {"explicit": GPT, "implicit": ImplicitGPT, "listed": GPTLanguageModel}


def scores_of(model, idx):
    out = model(idx)
    return out[0] if isinstance(out, tuple) else out


@pytest.mark.parametrize("kind", MODELS)
def test_first_loss_is_that_of_guessing(kind: str) -> None:
    torch.manual_seed(0)
    idx = torch.randint(11, (4, 8))
    scores = scores_of(MODELS[kind](**SIZES), idx)
    assert scores.shape == (4, 8, 11)
    loss = float(TASKS["language"].loss(scores, idx.roll(-1, 1)).detach())
    assert loss == pytest.approx(math.log(11), abs=0.1)


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_learns_a_cycle(kind: str) -> None:
    torch.manual_seed(0)
    model = MODELS[kind](**SIZES)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(60):
        start = torch.randint(11, (16, 1))
        text = (start + torch.arange(9)) % 11
        loss = TASKS["language"].loss(scores_of(model, text[:, :-1]), text[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.1
    text = model.generate(torch.tensor([[3]]), 30, temperature=0)  # past block_size
    assert text[0].tolist() == [(3 + i) % 11 for i in range(31)]


def test_the_seeds_replacement_of_heads() -> None:
    torch.manual_seed(0)
    n_layer, n_head, n_embd, block_size = 2, 3, 12, 8
    model = GPTLanguageModel(11, n_embd, block_size, n_layer, n_head, 0.0)
    for i in range(n_layer):
        model.blocks[i].sa.heads = nn.ModuleList(
            [IDLHead(n_embd // n_head, n_embd, block_size) for _ in range(n_head)]
        )
    idx = torch.randint(11, (2, 8))
    logits, loss = model(idx, idx)
    assert logits.shape == (2, 8, 11)
    loss.backward()
    assert all(head.A.grad is not None for block in model.blocks for head in block.sa.heads)
    assert model(idx)[1] is None


def test_implicit_and_listed_models_give_the_same_scores() -> None:
    torch.manual_seed(0)
    fused = ImplicitGPT(**SIZES).double()
    listed = GPTLanguageModel(**SIZES).double()
    for own, other in zip(fused.blocks, listed.blocks, strict=True):
        other.sa = own.sa.to_heads()
    weights = {n: w for n, w in fused.state_dict().items() if ".sa." not in n}
    listed.load_state_dict(weights, strict=False)
    idx = torch.randint(11, (2, 8))
    torch.testing.assert_close(listed(idx)[0], fused(idx), atol=1e-12, rtol=0)


def test_models_differ_in_the_attention_alone() -> None:
    explicit, implicit = GPT(**SIZES), ImplicitGPT(**SIZES)

    def shapes(model):
        return {n: p.shape for n, p in model.named_parameters() if ".sa." not in n}

    assert shapes(explicit) == shapes(implicit)


def test_generation_draws_from_its_generator() -> None:
    torch.manual_seed(0)
    model, start = GPT(**SIZES), torch.zeros(2, 1, dtype=torch.int64)
    draws = [
        model.generate(start, 20, 0.8, 5, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)
    ]
    assert torch.equal(draws[0], draws[1])
    assert not torch.equal(draws[0], draws[2])
    streamed = model.stream(start, 20, 0.8, 5, torch.Generator().manual_seed(1))
    assert torch.equal(torch.cat((start, *streamed), 1), draws[0])


def test_top_k_of_one_is_the_best_token() -> None:
    torch.manual_seed(0)
    model, start = GPT(**SIZES), torch.zeros(1, 1, dtype=torch.int64)
    assert torch.equal(model.generate(start, 12, top_k=1), model.generate(start, 12, 0))


def test_wrong_arguments_are_refused() -> None:
    model, start = GPT(**SIZES), torch.zeros(1, 1, dtype=torch.int64)
    with pytest.raises(ValueError, match="top_k"):
        model.generate(start, 1, top_k=0)
    with pytest.raises(ValueError, match="temperature"):
        model.generate(start, 1, -1.0)
    with pytest.raises(ValueError, match="at least one token"):
        model.generate(start[:, :0], 1)
    with pytest.raises(ValueError, match="longer than block_size"):
        model(torch.zeros(1, 9, dtype=torch.int64))
    with pytest.raises(ValueError, match="vocab_size"):
        GPT(0, 12, 8, 2, 3)
    with pytest.raises(ValueError, match="multiple"):
        GPTLanguageModel(11, 10, 8, 2, 3)
