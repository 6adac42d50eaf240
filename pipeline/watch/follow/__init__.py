"""The journal of a run in progress, followed."""
