"""Ray: starting or joining it, nodes, capacity, tokens, and the transfer of files."""
