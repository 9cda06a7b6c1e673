"""Real GPU clients, unmodified, against the fake driver: `make clients` runs them and writes docs/clients.md."""
