"""A machine as data, from a TOML file or from options, and the driver that has it: for `fake-gpu run`."""
