"""`vramsettle demo`: the reclaim race, its cost and its cure, drawn in the terminal."""
