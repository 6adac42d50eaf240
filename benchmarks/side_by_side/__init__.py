"""What `benchmarks.peers` compares: one workload on disk, and the programs of others that work through it."""
