"""Affine equilibria on the CPU in one compiled call, for small matrices: what the programs take.

`programs/` is what numba (the extra `idl[fast]`) compiles; the other files give it the memory of
tensors.
"""
