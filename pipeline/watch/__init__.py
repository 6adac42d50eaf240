"""Ways to watch a run: terminal, dashboard, Prometheus, MLflow, Weights & Biases."""
