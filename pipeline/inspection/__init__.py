"""What the weights of experts, and a few scores, tell of edits and merges before a search: `lines inspect`."""
