"""Training one model: its components, the fit, and sharing it among processes."""
