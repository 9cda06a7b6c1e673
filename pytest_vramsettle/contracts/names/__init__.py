"""What names alone tell: bans on them, other names of one thing, misspelt ones, and the backstop behind *kept*."""
