"""The command line of idl: one file a command. Hydra, rich and wandb live here and nowhere else."""
