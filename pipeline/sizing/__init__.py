"""The memory, samples and hours that a run needs, from headers of its checkpoints: `lines plan`."""
