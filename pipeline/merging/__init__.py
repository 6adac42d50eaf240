"""Task vectors to weights: scaling over depth, merge methods, rebuilding in place."""
