"""Simulated workers and runs: the real driver with a pool that answers by a formula."""
