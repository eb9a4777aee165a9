"""Picard iteration in Triton: a tile of samples is solved to its tolerance in one launch.

Nothing here imports triton before a kernel is launched: it is not installed everywhere.
"""
