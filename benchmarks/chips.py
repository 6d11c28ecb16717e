"""Chips as their data sheets state them, and how long a sum over many of them takes at least."""

from __future__ import annotations

from typing import NamedTuple

from linknet_jax.utilisation import PEAKS

LINKS = 0.7  # part of the stated link rate that a large sum reaches; assumed


class Chip(NamedTuple):
    """Rates in bytes a second, of one direction.

    Attributes:
      flops: dense bfloat16 FLOP/s.
      memory, bandwidth: bytes, and bytes a second, of the chip's own memory.
      link: what it sends to the chips of its domain, all links together.
      domain: chips that those links join: a slice, or the GPUs of a machine.
      network: what it sends beyond the domain.
      cores: cores of its host, divided by the host's chips.
    """

    flops: float
    memory: float
    bandwidth: float
    link: float
    domain: int
    network: float
    cores: float


def _chip(
    name: str, gigabytes: float, bandwidth: float, link: float, domain: int, network: float,
    cores: float,
) -> Chip:  # fmt: skip
    return Chip(
        PEAKS[name], gigabytes * 1e9, bandwidth * 1e9, link * 1e9, domain, network * 1e9, cores
    )


# Google's documents of TPU v4 to v6e, NVIDIA's data sheets (SXM) with DGX hosts; GB and GB/s. Links
# are half of the bidirectional rate. A virtual CPU counts as half a core. Assumed, not looked up:
# v4's link and network, the GPUs' network (200, 400 Gbit/s each), cores of all hosts but v5p's.
CHIPS = {
    "v4": _chip("TPU v4", 34.4, 1200, 300, 4096, 6.25, 30),
    "v5e": _chip("TPU v5e", 16, 819, 200, 256, 3.125, 14),
    "v5p": _chip("TPU v5p", 102, 2765, 600, 6144, 6.25, 26),
    "v6e": _chip("TPU v6e", 32, 1600, 400, 256, 12.5, 11),
    "A100": _chip("NVIDIA A100", 80, 2039, 300, 8, 25, 16),
    "H100": _chip("NVIDIA H100", 80, 3350, 450, 8, 50, 14),
    "H200": _chip("NVIDIA H200", 141, 4800, 450, 8, 50, 14),
}


def sum_seconds(chip: Chip, chips: int, size: float, domain: int | None = None) -> float:
    """Seconds in which `chips` chips join `size` bytes each, and all have the sum.

    Rings: each domain scatters its sum over its chips, the parts are summed across the domains,
    and each domain gathers them. `domain`: chips of one, if not the chip's own.
    """
    inside = min(chips, domain or chip.domain)
    across = -(-chips // inside)
    fast = 2 * (inside - 1) / inside * size / chip.link
    slow = 2 * (across - 1) / across * size / inside / chip.network
    return (fast + slow) / LINKS
