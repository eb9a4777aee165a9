"""Affine equilibria and their adjoints in plain torch, on any device, in float32 and float64."""
