"""What the commands that compute do: train, sim, eval."""
