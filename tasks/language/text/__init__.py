"""Text tasks: choices ranked by log-likelihood, answers generated greedily, bits per byte of documents."""
