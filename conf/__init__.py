"""The YAML configuration of idl, importable so that Hydra finds it: pkg://idl_conf."""
