"""Data sets of the user's own arrays: reading an .npz, and what its labels mean."""
