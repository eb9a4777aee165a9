"""Running a command under Hydra: composition, launchers, sweepers, sweeps."""
