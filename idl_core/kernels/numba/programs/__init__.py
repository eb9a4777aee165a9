"""What numba compiles: a tile of samples after another, all its iterations in the nearest cache.

At the sizes of these models a product takes no longer than a BLAS takes to be called. Here all
iterations of a tile, of all steps of a sequence, are compiled loops in the first-level cache. Tiles
are shared out to torch's threads. Each iterates until its own samples have converged, so that the
result does not depend on how many threads there are.

A pass through a whole implicit model is one such call too, with its products and its gradients.
What is compiled is kept on disk.
"""

TILE_BYTES = 64
"""Of a row of a tile, which has a feature of 16 samples in float32, of 8 in float64."""
ROWS = 4
"""Rows of a product that are summed up at once: 4 x 64 bytes is half of the registers of AVX2."""
SMOOTH = ("tanh", "sigmoid", "silu", "gelu")
"""Activations that programs for whole models know, in float32 or for few samples, beside those that
are linear above and below zero. They are known by their places here, the others by -1."""
