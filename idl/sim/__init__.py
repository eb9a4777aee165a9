"""SIM under the import name users know. Re-exports only."""

from idl_core.sim import SIM, NoActivations, NotEnoughMemory, NotRescalable, rescaled

__all__ = ["SIM", "NoActivations", "NotEnoughMemory", "NotRescalable", "rescaled"]
