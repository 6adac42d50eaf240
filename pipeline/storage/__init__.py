"""Runs in object stores: the journal as a chain of segments, its local copy, the lease."""
