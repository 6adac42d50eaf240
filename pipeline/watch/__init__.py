"""Observers of a run: terminal, Prometheus, dashboard, MLflow, Weights & Biases."""
