"""Published image data sets as their files lie on disk: every format gives listings, split elsewhere."""
