"""Simulated workers and runs: the real driver over a pool that answers by a formula."""
