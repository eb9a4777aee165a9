"""ADMM on all rows, with an active-set method that ends it."""
