"""What is shown: progress, tables, figures."""
