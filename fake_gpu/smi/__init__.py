"""nvidia-smi in Python: what it is asked, what it prints, and with which status it ends."""
