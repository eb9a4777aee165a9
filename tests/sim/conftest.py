"""Settings of SIM's tests."""

from __future__ import annotations

import sys
from pathlib import Path

# The suite is collected by importlib, which puts no folder on the path.
sys.path.insert(0, str(Path(__file__).parent))
