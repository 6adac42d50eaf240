"""The training page of `lines ppo`, and training curves for the report of a run of rewards."""
