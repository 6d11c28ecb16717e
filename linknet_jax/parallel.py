"""Processes, the device mesh, and host batches on it. One program from a laptop to a pod."""

from __future__ import annotations

import collections
import os
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from linknet_jax.types import Batch

AXIS = "data"


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


def create_mesh() -> Mesh:
    """All devices along one axis, over which images are split."""
    return jax.make_mesh((jax.device_count(),), (AXIS,), axis_types=(AxisType.Auto,))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def split_images(mesh: Mesh) -> NamedSharding:
    """Leading axis over the devices."""
    return NamedSharding(mesh, PartitionSpec(AXIS))


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
