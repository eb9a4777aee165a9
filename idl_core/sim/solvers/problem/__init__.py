"""The convex problem of a row: objective, dual bound, incumbent; and what a solve reports."""
