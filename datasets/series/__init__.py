"""Data sets of time series: windows, a synthetic series, and the user's own table."""
