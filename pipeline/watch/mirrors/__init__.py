"""Copies of results in MLflow and Weights & Biases."""
