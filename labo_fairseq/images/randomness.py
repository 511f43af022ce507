"""Random numbers that depend on where they are drawn, not on what was drawn before: so a training resumes exactly."""

import hashlib

import torch


def seed_at(*place: object) -> int:
    """A seed in [0, 2^63) for a place such as ``(seed, "augment", epoch, batch)``; the same in every process."""
    digest = hashlib.sha256("/".join(map(str, place)).encode("utf-8")).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def generator_at(*place: object) -> torch.Generator:
    """A generator on the CPU, seeded with :func:`seed_at`."""
    generator = torch.Generator()
    generator.manual_seed(seed_at(*place))
    return generator
