"""Runs what Triton's front end compiled a program to, its TTIR, in NumPy, on any machine.

Triton's own interpreter runs the program's Python, so that it cannot show what a compiler made of
it. Here the compiled operations are what is run: `compiled` makes the TTIR of a program, `parser`
reads it, `operations` says what each operation computes, `run` launches a grid, and `launcher`
takes the place of a program.
"""

from ttir.compiled import compiled
from ttir.launcher import Launcher
from ttir.parser import Operation, Region, parse

__all__ = ["Launcher", "Operation", "Region", "compiled", "parse"]
