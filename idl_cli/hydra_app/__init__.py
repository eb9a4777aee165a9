"""Running a command under Hydra: composition, its errors, launchers, sweepers, sweeps."""
