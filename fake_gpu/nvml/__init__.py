"""NVML in Python: the table of its functions, one small function for each that is implemented, and the dispatcher."""
