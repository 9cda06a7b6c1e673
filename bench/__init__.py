"""What things cost, each beside something plain that is measured in the same run: `python -m bench`."""
