"""The run directory: writing it, reading it, querying it."""
