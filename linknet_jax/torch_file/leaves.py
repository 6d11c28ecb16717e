"""Nested dictionaries of records to leaves by dotted name."""

from __future__ import annotations

from linknet_jax.torch_file.records import Pairs, StateDict, describe, short

MAX_NODES = 100_000  # dictionaries and leaves
MAX_DEPTH = 8
MAX_KEY = 255  # characters


def flatten(tree: object) -> dict[str, object]:
    """Leaves of nested dictionaries by dotted name, in the order of the file."""
    if _children(tree) is None:
        raise ValueError(f"the file holds {describe(tree)}, no dictionary")
    leaves: dict[str, object] = {}
    pending = [((), tree)]
    seen = 0
    while pending:
        path, node = pending.pop()
        children = _children(node)
        seen += 1 + len(children or ())
        if len(path) > MAX_DEPTH or seen > MAX_NODES:
            raise ValueError(f"dictionaries deeper than {MAX_DEPTH} or of more than {MAX_NODES}")
        if children is not None:
            pending += [((*path, _key(key)), child) for key, child in reversed(children)]
        elif (name := ".".join(path)) in leaves:
            raise ValueError(f"two leaves are named {short(name)}")
        else:
            leaves[name] = node
    return leaves


def _children(node: object) -> list[tuple[object, object]] | None:
    """Pairs of a dictionary; None for a leaf."""
    if type(node) in (dict, StateDict):
        return list(node.items())
    if type(node) is not Pairs:
        return None
    if any(type(pair) not in (list, tuple) or len(pair) != 2 for pair in node.items):
        raise ValueError("an OrderedDict of something else than pairs")
    return [(key, child) for key, child in node.items]


def _key(key: object) -> str:
    if type(key) not in (str, int) or len(str(key)) > MAX_KEY:
        raise ValueError(f"key {short(key)} is no integer or string of {MAX_KEY} characters")
    return str(key)
