"""CLIP backbones of open_clip: architectures, checkpoints, export."""
