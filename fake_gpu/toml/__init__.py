"""Data with types and limits, from TOML files and from Python: what does not fit is told by key, and by line."""
