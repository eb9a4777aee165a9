"""Devices, ranks, workers and signals."""
