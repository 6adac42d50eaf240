"""Locate, read, merge and write checkpoints."""
