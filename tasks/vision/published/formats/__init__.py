"""File formats of published image sets; each lists the images and labels of a split."""
