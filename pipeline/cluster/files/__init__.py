"""The files of a spec, bundled and sent once to each node that lacks them."""
