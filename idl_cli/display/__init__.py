"""Progress, tables and figures."""
