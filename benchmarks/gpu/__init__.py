"""One table of everything that was not measured without a GPU: python -m benchmarks.gpu."""
