"""The configuration: what may be typed, with its bounds, and the objects built from it."""
