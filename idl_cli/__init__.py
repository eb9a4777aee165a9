"""The command line of idl. Hydra, rich and wandb live here and nowhere else."""
