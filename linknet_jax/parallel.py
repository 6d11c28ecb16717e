"""Processes, the device mesh, and host batches on it. One program from a laptop to a pod."""

from __future__ import annotations

import collections
import math
import os
from collections.abc import Callable, Iterable, Iterator, Sequence

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from linknet_jax.types import Batch

AXES = ("data", "fsdp")  # images are split over both, large parameters over the second
SHARDED_FROM = 2**16  # entries


def initialize_distributed() -> None:
    """Joins the other processes of a run; alone where there are none.

    They are found by the cluster's metadata, or by LINKNET_COORDINATOR (host:port of process 0),
    LINKNET_NUM_PROCESSES and LINKNET_PROCESS_ID. ValueError where one of the two is no number.
    """
    coordinator = os.environ.get("LINKNET_COORDINATOR")
    if coordinator:
        count, index = _number("LINKNET_NUM_PROCESSES"), _number("LINKNET_PROCESS_ID")
        jax.distributed.initialize(coordinator, count, index)
        return
    try:
        jax.distributed.initialize()
    except ValueError:  # no cluster: one process
        return
    except RuntimeError as error:  # called from a program that already uses JAX, alone
        if "must be called before" not in str(error):
            raise


def _number(name: str) -> int:
    value = os.environ.get(name, "")
    if not value.isdecimal():
        raise ValueError(
            f"{name}={value!r} must be a whole number where LINKNET_COORDINATOR is set"
        )
    return int(value)


def create_mesh(fsdp: int = 1, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """All devices, or those given, `fsdp` of them in a row sharing the large parameters."""
    devices = jax.devices() if devices is None else devices
    shape = (len(devices) // fsdp, fsdp)
    if len({getattr(device, "slice_index", 0) for device in devices}) > 1:
        return Mesh(np.array(devices).reshape(shape), AXES)  # make_mesh knows single slices
    return jax.make_mesh(shape, AXES, axis_types=(AxisType.Auto,) * 2, devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_images(mesh: Mesh) -> NamedSharding:
    """Leading axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def split_axis(shape: Sequence[int], mesh: Mesh) -> int | None:
    """The axis of an array of the state that is split over "fsdp"; None: each device has all.

    Large ones are, along the longest axis that divides evenly.
    """
    count = mesh.shape["fsdp"]
    axes = [axis for axis, size in enumerate(shape) if size % count == 0]
    if count == 1 or not axes or math.prod(shape) < SHARDED_FROM:
        return None
    return max(axes, key=lambda axis: shape[axis])


def split_spec(shape: Sequence[int], mesh: Mesh) -> PartitionSpec:
    """`split_axis` as a PartitionSpec."""
    axis = split_axis(shape, mesh)
    return PartitionSpec() if axis is None else PartitionSpec(*[None] * axis, "fsdp")


def placed(tree: PyTree, mesh: Mesh) -> PyTree:
    """Shapes of the arrays of a state, with the sharding of each."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=NamedSharding(mesh, split_spec(x.shape, mesh))
        ),
        tree,
    )


def shardings(tree: PyTree) -> PyTree:
    """The sharding of each array or shape."""
    return jax.tree.map(lambda x: x.sharding, tree)


def gathered(tree: PyTree, mesh: Mesh) -> PyTree:
    """The same arrays, all of each on every device."""
    return jax.jit(lambda x: x, out_shardings=replicated(mesh))(tree)


def over_images(function: Callable[[PyTree, PyTree], PyTree], mesh: Mesh) -> Callable:
    """`function(variables, batch)`, compiled; each device handles its own images alone."""
    split, same = PartitionSpec(AXES), PartitionSpec()
    local = jax.shard_map(
        function, mesh=mesh, in_specs=(same, split), out_specs=split, check_vma=False
    )
    shardings = (replicated(mesh), split_images(mesh))
    return jax.jit(local, in_shardings=shardings, out_shardings=shardings[1])


def to_devices(batch: Batch, mesh: Mesh) -> Batch:
    """This process's images as its part of one global, sharded batch."""
    sharding = split_images(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def device_batches(batches: Iterable[Batch], mesh: Mesh, depth: int = 2) -> Iterator[Batch]:
    """Global batches, with `depth` transfers in flight."""
    queue: collections.deque[Batch] = collections.deque()
    for batch in batches:
        queue.append(to_devices(batch, mesh))
        if len(queue) > depth:
            yield queue.popleft()
    yield from queue


def local_rows(tree: PyTree) -> PyTree:
    """This process's rows of arrays that are split over the devices, as NumPy."""
    return jax.tree.map(_local_rows, tree)


def _local_rows(x: jax.Array) -> np.ndarray:
    if x.is_fully_addressable:
        return np.asarray(x)
    shards = sorted(x.addressable_shards, key=lambda shard: shard.index[0].start or 0)
    return np.concatenate([np.asarray(shard.data) for shard in shards])
