"""What a user names (a file, a folder, a hub id) to named tensors, and back to files."""
