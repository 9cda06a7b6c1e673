"""The thin C clients of the driver, and where their compiled files are."""
