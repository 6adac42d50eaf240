"""Comparisons of a run with a baseline, and histories of a metric over runs."""
