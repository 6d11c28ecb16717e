"""Time and memory of training the paper's full size on 1 to 1,024 chips, on paper.

    python -m benchmarks.scaling [--batch 16] [--chips v5e,H100] [--efficiency 0.4]

No device is needed: FLOPs and bytes are counted, rates are the data sheets' (`chips.py`), parts of
them that are reached are assumed. docs/scaling.md says what follows, and what is not modelled.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import AbstractMesh, AxisType
from ml_collections import ConfigDict

from benchmarks.chips import CHIPS, Chip, sum_seconds
from benchmarks.head_eval import PADDED, lognormal_counts, row_flops
from benchmarks.step_program import state_shapes
from linknet_jax import parallel
from linknet_jax.config import get_config
from linknet_jax.state import split_params

COUNTS = (1, 8, 64, 256, 1024)
EFFICIENCY, MEMORY = 0.4, 0.8  # parts of peak FLOP/s and memory bandwidth reached; assumed
VGG16 = ((3, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 2), (128, 256, 4), (256, 256, 4),
         (256, 256, 4), (256, 512, 8), (512, 512, 8), (512, 512, 8), (512, 512, 16),
         (512, 512, 16), (512, 512, 16))  # fmt: skip
# Least bytes a trained parameter: gradient twice (norm, update), state and parameter read, written.
TRAFFIC = {"sgd": 24, "adamw": 32, "sgd, EMA": 32, "adamw, EMA": 40}
STATE = {"sgd": 4, "adamw": 8, "sgd, EMA": 8, "adamw, EMA": 12}  # bytes beside the parameter
IMAGES_A_CORE = 211  # docs/results.md, photographs of 640 px to 592
DISK = 1e9  # bytes a second that a checkpoint is written with; assumed


class Work(NamedTuple):
    """What training asks of a chip, whatever the chip.

    Attributes:
      flops: FLOPs an image.
      parameters, large: all, and those of them that FSDP splits.
      trained, large_trained: likewise of the trained ones.
      activations: bytes of a step: (constant part, of an image).
      read: bytes an image that reach the chip; of cached maps they come from storage.
    """

    flops: float
    parameters: int
    large: int
    trained: int
    large_trained: int
    activations: tuple[float, float]
    read: float


class Time(NamedTuple):
    """Seconds of a step by what takes them."""

    compute: float
    optimizer: float
    exchange: float


# XLA's memory analysis on a CPU, `python -m benchmarks.step_program sgcls full_size --devices 1`
# with batches of 1, 2, 8, 32 and nothing or trunk and box head frozen. It does not see the maps of
# a frozen trunk, which XLA fuses there: the two largest, float32, are counted.
MAPS = 2 * 4 * 64 * 592**2
LEARNED, FROZEN, CACHED = (0.72e9, 1.37e9), (0.0, MAPS), (0.0, 0.0)
UPDATE = 7.2  # bytes a trained parameter while it is updated, by the same count


def works() -> dict[str, Work]:
    """The regimes: everything learns; trunk and box head frozen; the same on cached features."""
    config = get_config("sgcls", "full_size")
    frozen = get_config("sgcls", "full_size")
    frozen.model.freeze_trunk = frozen.model.freeze_box_head = True
    side = config.data.image_size
    pixels, maps = 3 * side**2, 4 * 512 * (side // 16) ** 2
    trunk, head, still = trunk_flops(side), head_flops(config, 4), head_flops(config, 1)
    return {
        "all learns": _work(config, 3 * trunk + head, LEARNED, pixels),
        "frozen": _work(frozen, trunk + still, FROZEN, pixels),
        "frozen, cached": _work(frozen, still, CACHED, maps),
    }


def _work(config: ConfigDict, flops: float, activations: tuple, read: float) -> Work:
    params = state_shapes(config).params
    trained = list(split_params(params, config)[0].values())
    return Work(flops, *_sizes(jax.tree.leaves(params)), *_sizes(trained), activations, read)


def _sizes(arrays: list[jax.ShapeDtypeStruct]) -> tuple[int, int]:
    """(entries, those of the arrays that 8 devices split)."""
    mesh = AbstractMesh((1, 8), parallel.AXES, axis_types=(AxisType.Auto,) * 2)
    large = [x.size for x in arrays if parallel.split_axis(x.shape, mesh) is not None]
    return sum(x.size for x in arrays), sum(large)


def trunk_flops(side: int) -> float:
    """Forward FLOPs of VGG16's convolutions."""
    return sum(2 * 9 * a * b * (side // stride) ** 2 for a, b, stride in VGG16)


def head_flops(config: ConfigDict, box_head: int) -> float:
    """FLOPs of training the head on an image with Visual Genome's object counts.

    Packed rows are computed forwards, again, and backwards: 4 forward passes; the box head
    `box_head` of them; what is padded 3.
    """
    model, rows = config.model, row_flops(config.model)
    counts = lognormal_counts(6400)
    box = 2 * model.fc_dim * (512 * model.roi_size**2 + model.fc_dim)
    objects = counts.mean() * ((rows.object - box) * 4 + box * box_head)
    unions = unions_drawn(counts, config.sampling.pairs).mean()
    return float(objects + 3 * PADDED * rows.padded + unions * rows.pair * 4)


def unions_drawn(counts: np.ndarray, pairs: int) -> np.ndarray:
    """Expected union boxes of `pairs` ordered pairs, drawn without regard to the direction."""
    ordered = counts * (counts - 1)
    left = np.maximum(1 - pairs / np.maximum(ordered, 1), 0)
    return ordered / 2 * (1 - left**2)


def step_time(
    chip: Chip, work: Work, chips: int, batch: int, efficiency: float, optimizer: str, fsdp: int = 1
) -> Time:
    """Seconds of a step with `batch` images a chip, `fsdp` chips sharing the large parameters."""
    small = work.trained - work.large_trained
    held = small + work.large_trained / fsdp
    sums = sum_seconds(chip, chips, 4 * small)
    # Inside the group all parameters are gathered and gradients scattered: half a sum each.
    sums += sum_seconds(chip, fsdp, 2 * (work.large + work.large_trained))
    domain = max(min(chips, chip.domain) // fsdp, 1)
    sums += sum_seconds(chip, chips // fsdp, 4 * work.large_trained / fsdp, domain)
    return Time(
        batch * work.flops / (efficiency * chip.flops),
        held * TRAFFIC[optimizer] / (MEMORY * chip.bandwidth),
        sums,
    )


def memory(work: Work, batch: int, optimizer: str, fsdp: int = 1) -> float:
    """Bytes on a chip: the state at rest; gradients, gathered parameters, activations or update."""
    elsewhere = 1 - 1 / fsdp
    held = work.trained - work.large_trained * elsewhere
    rest = 4 * (work.parameters - work.large * elsewhere) + STATE[optimizer] * held
    gathered = 4 * work.large if fsdp > 1 else 0
    constant, image = work.activations
    return rest + 4 * work.trained + gathered + max(constant + image * batch, UPDATE * held)


def hiding_batch(chip: Chip, work: Work, chips: int, efficiency: float) -> float:
    """Images a chip whose computation takes as long as the sum of the gradients."""
    return sum_seconds(chip, chips, 4 * work.trained) * efficiency * chip.flops / work.flops


def show(title: str, columns: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """A table in Markdown."""
    columns = list(columns)
    print(f"\n{title}\n\n| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for row in rows:
        cells = [f"{x:.3g}" if isinstance(x, float) and x < 1000 else _text(x) for x in row]
        print(f"| {' | '.join(cells)} |")


def _text(value: object) -> str:
    return f"{value:,.0f}" if isinstance(value, float) else str(value)


def show_work(regimes: dict[str, Work]) -> None:
    columns = ("regime", "GFLOP an image", "parameters, M", "trained, M", "split by FSDP, M",
               "gradients, GB", "read an image, MB")  # fmt: skip
    rows = [
        (name, w.flops / 1e9, w.parameters / 1e6, w.trained / 1e6, w.large / 1e6,
         4 * w.trained / 1e9, w.read / 1e6)
        for name, w in regimes.items()
    ]  # fmt: skip
    show("Work", columns, rows)


def show_steps(name: str, chip: Chip, regimes: dict[str, Work], batch: int, part: float) -> None:
    columns = ("regime", "chips", "compute ms", "optimizer ms", "exchange ms", "images/s",
               "of linear", "limit", "memory GB")  # fmt: skip
    rows = []
    for regime, work in regimes.items():
        alone = sum(step_time(chip, work, 1, batch, part, "sgd"))
        for chips in COUNTS:
            time = step_time(chip, work, chips, batch, part, "sgd")
            limit = Time._fields[int(np.argmax(time))]
            rate = chips * batch / sum(time)
            rows.append((regime, chips, *(1e3 * x for x in time), rate, alone / sum(time), limit,
                         memory(work, batch, "sgd") / 1e9))  # fmt: skip
    show(f"{name}, {batch} images a chip, SGD, nothing hidden", columns, rows)


def show_hiding(regimes: dict[str, Work], part: float) -> None:
    columns = ("chip", *(f"{regime}, {n}" for regime in regimes for n in (8, 256, 1024)))
    rows = [
        (name, *(
            hiding_batch(chip, work, n, part) for work in regimes.values() for n in (8, 256, 1024)
        ))
        for name, chip in CHIPS.items()
    ]  # fmt: skip
    show("Images a chip from which computation takes longer than the exchange", columns, rows)


def show_input(regimes: dict[str, Work], batch: int, part: float) -> None:
    columns = ("chip", "cores of its host", *(f"{x}: images/s, need" for x in regimes))
    rows = []
    for name, chip in CHIPS.items():
        cells = []
        for regime, work in regimes.items():
            rate = batch / sum(step_time(chip, work, 8, batch, part, "sgd"))
            need = f"{rate / IMAGES_A_CORE:.1f} cores"
            if "cached" in regime:
                need = f"{rate * work.read / 1e9:.1f} GB/s"
            cells.append(f"{rate:.0f}, {need}")
        rows.append((name, chip.cores, *cells))
    show(f"Input of one chip of 8, {batch} images a chip", columns, rows)


def show_fsdp(name: str, chip: Chip, regimes: dict[str, Work], batch: int, part: float) -> None:
    columns = ("regime", "optimizer", "fsdp", "optimizer ms", "exchange ms", "memory, GB")
    rows = [
        (regime, optimizer, fsdp, 1e3 * time.optimizer, 1e3 * time.exchange,
         memory(work, batch, optimizer, fsdp) / 1e9)
        for regime, work in list(regimes.items())[:2]
        for optimizer in ("sgd", "adamw, EMA")
        for fsdp in (1, 8)
        for time in [step_time(chip, work, 64, batch, part, optimizer, fsdp)]
    ]  # fmt: skip
    show(f"FSDP on 64 {name}, {batch} images a chip", columns, rows)


def show_memory(regimes: dict[str, Work]) -> None:
    columns = ("regime", "optimizer", *(f"batch {n}, GB" for n in (1, 8, 32)), "checkpoint, GB",
               "written in, s")  # fmt: skip
    rows = []
    for regime, work in list(regimes.items())[:2]:
        for optimizer, state in STATE.items():
            saved = 4 * work.parameters + state * work.trained
            sizes = (memory(work, n, optimizer) / 1e9 for n in (1, 8, 32))
            rows.append((regime, optimizer, *sizes, saved / 1e9, saved / DISK))
    show("Memory of a chip, and checkpoints", columns, rows)


def fitting(chip: Chip, work: Work, optimizer: str) -> int:
    """Most images a chip for which 0.9 of its memory suffices."""
    batches = range(1, 1025)
    return sum(memory(work, batch, optimizer) <= 0.9 * chip.memory for batch in batches)


def show_fitting(regimes: dict[str, Work]) -> None:
    learned, frozen = (regimes[name] for name in ("all learns", "frozen"))
    cases = [(w, optimizer) for w in (learned, frozen) for optimizer in ("sgd", "adamw, EMA")]
    columns = (
        "chip",
        "all learns, sgd",
        "all learns, adamw, EMA",
        "frozen, sgd",
        "frozen, adamw, EMA",
    )
    rows = [(name, *(fitting(chip, *case) for case in cases)) for name, chip in CHIPS.items()]
    show("Images a chip that fit, float32, without accumulation", columns, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=16, help="images a chip")
    parser.add_argument("--chips", default="v5e,H100")
    parser.add_argument("--efficiency", type=float, default=EFFICIENCY)
    flags = parser.parse_args()
    names = flags.chips.split(",")
    if unknown := set(names) - CHIPS.keys():
        parser.error(f"--chips {','.join(sorted(unknown))}: none of {', '.join(CHIPS)}")
    regimes = works()
    show_work(regimes)
    for name in names:
        show_steps(name, CHIPS[name], regimes, flags.batch, flags.efficiency)
        show_fsdp(name, CHIPS[name], regimes, flags.batch, flags.efficiency)
    show_hiding(regimes, flags.efficiency)
    show_input(regimes, flags.batch, flags.efficiency)
    show_memory(regimes)
    show_fitting(regimes)
    return 0


if __name__ == "__main__":
    sys.exit(main())
