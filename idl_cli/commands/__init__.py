"""One file a command: `idl X` is X.py here."""
