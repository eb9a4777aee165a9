"""The spiky series against its description."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from idl_datasets import DatasetError, SeriesDataset, load
from idl_datasets.series.spiky import spiky


def test_it_is_a_sine_with_bursts() -> None:
    values = spiky(seed=3)
    x = np.linspace(0, 100, 10_000)
    waves = 3.5 * sum(np.sin(f * x) for f in (2, 23, 78, 100))
    burst = np.abs(values - waves) < 1e-9
    rest = (values - np.sin(x))[~burst]
    # 27 regions of 107 points, some of them overlapping.
    assert 107 * 15 < burst.sum() <= 107 * 27
    runs = np.flatnonzero(np.diff(np.concatenate(([0], burst.astype(int), [0])))).reshape(-1, 2)
    assert (runs[:, 1] - runs[:, 0]).min() >= 107
    assert rest.std() == pytest.approx(0.35, rel=0.03)
    assert abs(rest.mean()) < 0.02


def test_the_seed_makes_it_and_nothing_else() -> None:
    torch.manual_seed(0)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert np.array_equal(spiky(1), spiky(1))
    assert not np.array_equal(spiky(1), spiky(2))
    assert torch.equal(torch.get_rng_state(), state)
    assert np.array_equal(np.random.get_state()[1], numpy_state)  # noqa: NPY002


def test_splits() -> None:
    data = load("spiky", seed=5)
    assert isinstance(data, SeriesDataset)
    assert data.input_shape == (60, 1)
    assert (data.task, data.output_dim) == ("regression", 1)
    assert (len(data.train), len(data.val), len(data.test)) == (5400 - 60, 600, 4000)
    values = spiky(5)
    inputs, targets = data.test.batch(torch.tensor([0, 3999]))
    mean, std = values[:5400].mean(), values[:5400].std()
    for row, end in ((0, 6000), (1, 9999)):
        expected = (values[end - 60 : end] - mean) / std
        np.testing.assert_allclose(inputs[row, :, 0].numpy(), expected, atol=1e-5)
        assert float(targets[row]) == pytest.approx((values[end] - mean) / std, abs=1e-5)
    assert load("spiky", val_fraction=0).val is None


def test_a_level_can_be_chosen() -> None:
    assert np.abs(spiky(0, level=20)).max() > np.abs(spiky(0)).max()
    assert load("spiky", level=3, look_back=10).input_shape == (10, 1)
    with pytest.raises(DatasetError, match="level=0"):
        load("spiky", level=0)
    with pytest.raises(DatasetError, match=r"no option 'lookback'. Did you mean 'look_back'"):
        load("spiky", lookback=3)
