"""CLIP backbones of open_clip, and classifiers with a text head."""
