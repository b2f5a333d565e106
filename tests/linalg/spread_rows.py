"""Rows that other files of this folder test with."""

import numpy as np
import torch


def rows_of(seed, n, columns, dtype=torch.float64):
    """Return rows whose columns' deviations span six decades, about 7."""
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.normal(size=(n, columns)) * np.logspace(-3, 3, columns) + 7).to(dtype)
