"""A spec to what is in memory: base, experts, tasks, rewards.

The driver runs this code before a run to check everything, and each worker runs it when it starts.
"""
