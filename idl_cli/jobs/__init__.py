"""What `idl train`, `idl sim` and `idl eval` do once the configuration is composed."""
