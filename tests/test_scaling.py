"""The scaling model: its counts against XLA's and by hand, its sums against their definition."""

import math
import sys

import jax
import numpy as np
import pytest
import tiny

from benchmarks import scaling, step_program
from benchmarks.chips import CHIPS, LINKS, sum_seconds
from linknet_jax import parallel

CHIP = CHIPS["H100"]


@pytest.fixture(scope="module")
def regimes():
    return scaling.works()


def test_counts_of_the_full_size(regimes):
    assert scaling.trunk_flops(592) == pytest.approx(214.4e9, rel=0.005)
    learns, frozen, cached = regimes.values()
    assert learns.trained == learns.parameters == pytest.approx(424.7e6, rel=0.001)
    assert frozen.trained == pytest.approx(290e6, rel=0.001)
    assert frozen.flops - cached.flops == pytest.approx(scaling.trunk_flops(592))
    # What `step_program sgcls full_size --devices 8 --fsdp 8` gathers and scatters, frozen.
    assert (4 * frozen.large, frozen.large_trained // 2) == (1_697_159_680, 144_730_944)
    assert cached.trained == frozen.trained and learns.large == learns.large_trained


def test_devices_exchange_what_the_model_counts(monkeypatch):
    monkeypatch.setattr(parallel, "SHARDED_FROM", 64)
    config, mesh = tiny.create_task().config, parallel.create_mesh(4, jax.devices()[:8])
    params = step_program.state_shapes(config).params
    sizes = [(x.size, parallel.split_axis(x.shape, mesh)) for x in jax.tree.leaves(params)]
    large = sum(size for size, axis in sizes if axis is not None)
    small = sum(size for size, axis in sizes if axis is None)
    assert large > small > 0
    step = step_program.lowered_step(config, 1, mesh).compile(tiny.FAST)
    found = step_program.exchanged(step.as_text())
    scalars = found.pop("all-reduce") - 4 * (small + large / 4)
    assert 0 < scalars <= 32 + 8 * len(sizes)  # losses, counts; norms of split gradients
    assert found == {"all-gather": 4 * large, "reduce-scatter": large}


def test_bytes_of_a_program():
    hlo = """
    %a = (f32[2,3]{1,0}, bf16[5]{0}) all-reduce(%x, %y), channel_id=1
    %b = f32[] all-reduce-start(%z)
    ROOT %c = u8[7]{0} all-gather(%w)
    %d = f32[100] add(%all-reduce.1, %all-gather.2)
    """
    assert step_program.exchanged(hlo) == {"all-reduce": 24 + 10 + 4, "all-gather": 7}
    with pytest.raises(ValueError, match="f8e5m2"):
        step_program.exchanged("= f8e5m2[3] all-gather(")


def test_sums_by_hand():
    assert sum_seconds(CHIP, 1, 1e9) == 0
    inside = 2 * 7 / 8 * 1e9 / 450e9
    assert sum_seconds(CHIP, 8, 1e9) == pytest.approx(inside / LINKS)
    across = 2 * 3 / 4 * 1e9 / 8 / 50e9
    assert sum_seconds(CHIP, 32, 1e9) == pytest.approx((inside + across) / LINKS)
    # 256 v5e have an all-reduce bandwidth of 51.2 TB/s, their page says: 200 GB/s a chip.
    assert sum_seconds(CHIPS["v5e"], 256, 1e9) == pytest.approx(2 / 200 / LINKS, rel=0.005)


@pytest.mark.parametrize("chips", [8, 64, 1024])
def test_sharing_parameters_moves_as_much_and_updates_less(regimes, chips):
    times = [
        scaling.step_time(CHIP, regimes["all learns"], chips, 16, 0.4, "sgd", fsdp)
        for fsdp in (1, 8)
    ]
    assert times[1].exchange == pytest.approx(times[0].exchange)
    assert times[1].compute == times[0].compute
    assert times[1].optimizer == pytest.approx(times[0].optimizer / 8, rel=0.02)


def test_the_hiding_batch_takes_as_long_as_the_exchange(regimes):
    work = regimes["all learns"]
    batch = scaling.hiding_batch(CHIP, work, 64, 0.4)
    time = scaling.step_time(CHIP, work, 64, batch, 0.4, "sgd")
    assert time.compute == pytest.approx(time.exchange)


# Arguments and temporaries that `step_program sgcls full_size` says.
@pytest.mark.parametrize(
    "regime, batch, fsdp, measured",
    [
        ("all learns", 1, 1, 7.88e9),
        ("all learns", 2, 1, 8.53e9),
        ("all learns", 8, 1, 16.80e9),
        ("all learns", 32, 1, 49.75e9),
        ("frozen", 1, 1, 6.23e9),
        ("frozen", 8, 1, 6.24e9),
        ("frozen", 1, 8, 3.41e9),
    ],
)
def test_memory_is_what_xla_counts(regimes, regime, batch, fsdp, measured):
    found = scaling.memory(regimes[regime], batch, "sgd", fsdp)
    assert found == pytest.approx(measured, rel=0.05)


def test_the_fitting_batch_fits(regimes):
    work = regimes["frozen"]
    batch = scaling.fitting(CHIP, work, "sgd")
    sizes = [scaling.memory(work, n, "sgd") for n in (batch, batch + 1)]
    assert sizes[0] <= 0.9 * CHIP.memory < sizes[1]


@pytest.mark.parametrize("count", [2, 10, 16, 17, 30, 64])
def test_union_boxes_of_a_sample(count):
    ordered, pairs = count * (count - 1), 256
    missed = math.comb(max(ordered - 2, 0), min(pairs, ordered)) / math.comb(
        ordered, min(pairs, ordered)
    )
    expected = ordered / 2 * (1 - missed)
    assert scaling.unions_drawn(np.array([count]), pairs)[0] == pytest.approx(expected, rel=0.002)


def test_tables(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["scaling", "--chips", "v5p"])
    assert scaling.main() == 0
    text = capsys.readouterr().out
    assert "v5p, 16 images a chip" in text and "H100, 16 images" not in text
    rows = [line for line in text.splitlines() if line.startswith("| all learns | 1024 |")]
    assert len(rows) == 1 and "nan" not in text
    monkeypatch.setattr(sys, "argv", ["scaling", "--chips", "v9"])
    with pytest.raises(SystemExit):
        scaling.main()
