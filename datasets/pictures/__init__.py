"""Data sets of pictures: the published ones, and the user's own."""
