"""One solve shared by several processes: samples for the moments, rows for the solve."""
