"""Data sets of text: windows of tokens, and the tokenizers."""
