"""One file a command: `idl X` is X.py here.

To add a command: X.py with `main(arguments) -> exit code`, and its line of help in
`idl_cli.main.COMMANDS`.
"""
