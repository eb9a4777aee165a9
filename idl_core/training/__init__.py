"""Training of any torch module."""
