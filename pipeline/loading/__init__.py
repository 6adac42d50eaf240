"""Load what a spec names (base, experts, tasks, rewards): the driver checks it before a run, workers use it."""
