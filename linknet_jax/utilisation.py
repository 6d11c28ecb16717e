"""What a run takes of its devices: memory, and arithmetic against the vendor's peak."""

from __future__ import annotations

import pathlib
import resource
import sys

import jax
from jax.stages import Wrapped
from jaxtyping import PyTree

# Dense bfloat16 FLOP/s of a chip as its vendor states them, by the beginning of JAX's name.
PEAKS = {
    "TPU v2": 45e12, "TPU v3": 123e12, "TPU v4": 275e12, "TPU v5": 459e12, "TPU v5p": 459e12,
    "TPU v5 lite": 197e12, "TPU v5e": 197e12, "TPU v6 lite": 918e12, "TPU v6e": 918e12,
    "NVIDIA A100": 312e12, "NVIDIA H100": 989e12, "NVIDIA H200": 989e12, "NVIDIA L4": 121e12,
    "Tesla V100": 125e12, "Tesla T4": 65e12,
}  # fmt: skip


def step_flops(step: Wrapped, *operands: PyTree) -> float:
    """Floating-point operations of one call on one device, by XLA's count; 0 where it has none.

    A loop whose length depends on the data, as over packed regions, counts once: the number is a
    lower bound. `step` has run on such operands before: nothing is compiled again.
    """
    cost = step.lower(*operands).compile().cost_analysis() or {}
    return float(cost.get("flops", 0))


def peak_flops(device: jax.Device) -> float | None:
    """FLOP/s of the vendor's data sheet; None for a device that is not listed."""
    names = [name for name in PEAKS if device.device_kind.startswith(name)]
    return PEAKS[max(names, key=len)] if names else None


def utilisation(flops: float, seconds: float, device: jax.Device) -> dict[str, float]:
    """FLOP/s of a step of `flops` in so many seconds, and their part of the peak if it is known."""
    rate, peak = flops / max(seconds, 1e-9), peak_flops(device)
    return {"flops_per_second": rate} | ({"mfu": rate / peak} if peak else {})


def peak_memory() -> float:
    """Most GiB that the fullest device of this process had in use; of the process on a CPU."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    used = [x["peak_bytes_in_use"] for x in stats if "peak_bytes_in_use" in x]
    if used:
        return max(used) / 2**30
    return _peak_of_process() / 2**30


def _peak_of_process() -> int:
    """Bytes. Linux counts the program that started this one into ru_maxrss."""
    status = pathlib.Path("/proc/self/status")
    if status.exists():
        lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        if "VmHWM" in lines:
            return int(lines["VmHWM"].split()[0]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
