"""Files that nodes do not see: bundled and sent once to each node."""
