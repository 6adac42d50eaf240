"""A spec to what is in memory: base, experts, tasks and rewards. The driver runs it before a run, each worker when it starts."""
