"""Affine equilibria on a GPU: a tile of samples is solved to its tolerance in one launch, by Picard
iteration with Anderson acceleration of window 2.

Nothing here imports triton before a kernel is launched: it is not installed everywhere.
"""
