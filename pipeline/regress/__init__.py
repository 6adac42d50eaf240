"""Compare a run with a baseline, and a metric over many runs."""
