"""State-driven implicit modelling: an implicit model learned from a network's states."""

from idl_core.sim.memory import NotEnoughMemory
from idl_core.sim.rescaling import NotRescalable, rescaled
from idl_core.sim.sim import SIM
from idl_core.sim.states import NoActivations

__all__ = ["SIM", "NoActivations", "NotEnoughMemory", "NotRescalable", "rescaled"]
