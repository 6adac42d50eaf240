"""Random numbers that depend only on the seed and the step, so that a resumed training draws the same ones."""

import hashlib

import torch


def seed_of(*parts: object) -> int:
    """Return 63 bits that depend on every part and on nothing else."""
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=8).digest(), "big") >> 1


def generator_of(*parts: object) -> torch.Generator:
    """Return a generator on the CPU, seeded by `seed_of`."""
    return torch.Generator().manual_seed(seed_of(*parts))
