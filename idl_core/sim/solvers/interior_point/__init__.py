"""A primal-dual interior-point method in the low-curvature subspace or in the row space."""
