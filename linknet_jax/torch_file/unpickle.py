"""One pickle of a torch file to records: bounded before it starts, any other name is refused.

`_scan` bounds what the pickle machine of Python may build.
"""

from __future__ import annotations

import io
import pickle
import pickletools
from typing import BinaryIO

import numpy as np

from linknet_jax.torch_file.records import GLOBALS, STORAGES, Storage, short

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
MAX_OPCODES = 500_000
MAX_WEIGHT = 1000  # of a tuple: its items, counted through nested tuples
MARK = 0  # on the stack of weights, where everything else weighs at least one
IN_PLACE = {"BUILD", "APPEND", "APPENDS", "SETITEM", "SETITEMS", "ADDITEMS"}
TUPLES = {"TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "FROZENSET"}
REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER", "READONLY_BUFFER"}


class _Unpickler(pickle.Unpickler):
    """Knows the names above and nothing else; collects the storages by key."""

    def __init__(self, content: bytes):
        super().__init__(io.BytesIO(content), encoding="latin1")
        self.storages: dict[str, tuple[np.dtype, int]] = {}

    def find_class(self, module: str, name: str) -> object:
        if module == "torch" and name in STORAGES:
            return name
        # A dot within the name asks for an attribute of an attribute.
        if "." not in name and f"{module}.{name}" in GLOBALS:
            return GLOBALS[f"{module}.{name}"]
        raise ValueError(f"the pickle names {short(f'{module}.{name}')}{_reason(module, name)}")

    def persistent_load(self, pid: object) -> Storage:
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage":
            raise ValueError("the pickle refers to something that is no storage")
        _, kind, key, _, total, *view = pid
        if type(kind) is not str or kind not in STORAGES or type(key) is not str:
            raise ValueError("a storage needs a known type and a key")
        start, count = _storage_view(total, view[0] if view else None)
        root = (STORAGES[kind], total)
        if self.storages.setdefault(key, root) != root:
            raise ValueError(f"storage {short(key)} has two types or two sizes")
        return Storage(key, STORAGES[kind], total, start, count)


def _reason(module: str, name: str) -> str:
    if "sparse" in name or "quantized" in name or "qtensor" in name:
        return ": sparse and quantised layouts are not supported"
    if module in ("torch", "torch.storage") and name.endswith("Storage"):
        return f": an unknown dtype; known are {', '.join(STORAGES)}"
    return ", which is not allowed in a file of weights; nothing was executed"


def _storage_view(total: object, view: object) -> tuple[int, int]:
    """(start, count) of a storage or, in the legacy format, of its slice (key, start, count)."""
    start, count = (0, total) if view is None else view[1:]
    if any(type(number) is not int or number < 0 for number in (total, start, count)):
        raise ValueError("sizes of a storage are integers >= 0")
    if start + count > total:
        raise ValueError(f"elements {start} to {start + count} of a storage of {total}")
    return start, count


def _scan(stream: BinaryIO) -> None:
    """Moves behind the next pickle, refusing one that would cost much to load.

    Costs are what Python itself does not bound: the hash of a nested tuple (recursive in C, and
    exponential where parts repeat), a memo as long as its largest index, colliding large integers.
    """
    stack: list[int] = []
    memo: dict[int, int] = {}
    for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
        name = opcode.name
        if count > MAX_OPCODES or name in REFUSED:
            raise ValueError(f"opcode {count} of the pickle, {name}: at most {MAX_OPCODES}, plain")
        if name in ("MEMOIZE", "PUT", "BINPUT", "LONG_BINPUT"):
            memo[_memo_index(len(memo) if argument is None else argument)] = stack[-1]
            continue
        if type(argument) is int and argument.bit_length() > 64 and argument != LEGACY_MAGIC:
            raise ValueError(f"an integer of {argument.bit_length()} bits; 64 are allowed")
        popped = _pop(stack, opcode)
        weight = 1
        if name in ("GET", "BINGET", "LONG_BINGET"):
            weight = memo[int(argument)]
        elif name in TUPLES:
            weight += sum(popped)
        elif name in IN_PLACE or name == "DUP":
            weight = popped[-1]
        if weight > MAX_WEIGHT:
            raise ValueError(f"a tuple of more than {MAX_WEIGHT} nested items")
        stack.extend(MARK if name == "MARK" else weight for _ in opcode.stack_after)


def _memo_index(index: int) -> int:
    if int(index) > MAX_OPCODES:
        raise ValueError(f"index {index} of the memo; at most {MAX_OPCODES}")
    return int(index)


def _pop(stack: list[int], opcode: pickletools.OpcodeInfo) -> list[int]:
    """Weights that an opcode takes from the stack, the first operand last."""
    before, popped = list(opcode.stack_before), []
    if pickletools.markobject in before:
        while weight := stack.pop():
            popped.append(weight)
        before = before[: before.index(pickletools.markobject)]
    return popped + [stack.pop() for _ in before]


def unpickle(stream: BinaryIO) -> tuple[object, dict[str, tuple[np.dtype, int]]]:
    """The next pickle of a stream, and the storages it refers to; the stream moves behind it."""
    start = stream.tell()
    _scan(stream)
    end = stream.tell()
    stream.seek(start)
    unpickler = _Unpickler(stream.read(end - start))
    return unpickler.load(), unpickler.storages
