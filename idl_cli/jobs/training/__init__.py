"""Training one model: its components, the fit, several processes."""
