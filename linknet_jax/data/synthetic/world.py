"""The rules of the synthetic world: its classes, its predicates, and what is true of a layout."""

from __future__ import annotations

import dataclasses

from linknet_jax.types import Vocabulary

VOCABULARY = Vocabulary(
    objects=(
        "__background__", "tree", "man", "dog", "bird", "ball", "woman", "table", "wolf", "bat",
        "orange", "box", "child", "horse", "car", "bike", "cup", "kite", "hat", "umbrella",
    ),
    predicates=(
        "__background__", "left of", "right of", "near", "above", "under", "watching", "on",
        "holding", "chasing", "walking", "in front of", "behind", "riding", "wearing",
    ),
)  # fmt: skip
ANNOTATED = {  # how often an annotator writes down what is true
    "left of": 0.8, "right of": 0.7, "near": 0.6, "above": 0.75, "under": 0.7, "watching": 0.7,
    "on": 0.9, "holding": 0.9, "chasing": 0.85, "walking": 0.85, "in front of": 0.9,
    "behind": 0.8, "riding": 0.9, "wearing": 0.9,
}  # fmt: skip
ZERO_SHOT = frozenset({  # never true in a training or validation scene
    ("child", "riding", "horse"), ("woman", "holding", "kite"), ("man", "holding", "cup"),
    ("cup", "on", "box"), ("hat", "on", "table"), ("bird", "above", "dog"),
    ("hat", "under", "dog"), ("woman", "near", "tree"), ("ball", "near", "wolf"),
    ("tree", "left of", "bat"), ("tree", "behind", "car"), ("table", "near", "bird"),
    ("box", "right of", "bird"), ("woman", "walking", "dog"),
})  # fmt: skip

PEOPLE = frozenset({"man", "woman", "child"})
MOUNTS = frozenset({"horse", "bike"})
SUPPORTS = frozenset({"table", "box"})
HANDHELD = frozenset({"umbrella", "kite", "cup"})
SMALL = frozenset({"cup", "hat", "ball", "orange"})
WATCHING = frozenset({("dog", "bird"), ("wolf", "bat"), ("woman", "child")})
CHASING = frozenset({("dog", "ball"), ("wolf", "horse"), ("wolf", "bird")})
SIDE = 128  # pixels, the unit of the world; another image size is a scaled picture
NEAR, FAR = 8, 11  # pixels between neighbours, and between others: nothing lies in between
BESIDE, ASKEW = 0.42, 0.28  # shared part of the shorter side, likewise
Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class Thing:
    """One drawn object: what it looks like, and its box in the 128-pixel world."""

    icon: str
    box: Box


def classes(things: list[Thing], day: bool) -> list[str]:
    """Class names; dog and wolf, ball and orange, bird and bat look alike and depend on the rest.

    With people around a canine is a dog, with a table a disc is an orange (relational context);
    what flies by day is a bird (global context: only the sun or moon tells).
    """
    icons = {x.icon for x in things}
    meaning = {
        "canine": "dog" if icons & PEOPLE else "wolf",
        "disc": "orange" if "table" in icons else "ball",
        "flyer": "bird" if day else "bat",
    }
    return [meaning.get(x.icon, x.icon) for x in things]


def relations(things: list[Thing], names: list[str]) -> list[tuple[int, int, str]]:
    """Everything that is true: (subject, object, predicate), at most one for an ordered pair."""
    pairs = [(s, o) for s in range(len(things)) for o in range(len(things)) if s != o]
    found = [(s, o, predicate(things, names, s, o)) for s, o in pairs]
    return [(s, o, p) for s, o, p in found if p is not None]


def predicate(things: list[Thing], names: list[str], s: int, o: int) -> str | None:
    """The true predicate of an ordered pair, None if there is none; later things hide earlier."""
    a, b, pair = things[s].box, things[o].box, (names[s], names[o])
    if names[s] in PEOPLE and (found := _person(a, b, names[o])):
        return found
    if names[s] in SMALL and names[o] in SUPPORTS and _rests_on(a, b):
        return "on"
    across, down = shared(a, b)
    if across > 0 and down > 0:
        attached = _attached(a, b, *pair) or _attached(b, a, *pair[::-1])
        return None if attached else "in front of" if s > o else "behind"
    if pair in WATCHING:
        return "watching"
    if max(-across, -down) > NEAR:
        return None
    if pair in CHASING:
        return "chasing"
    return "walking" if names[s] in PEOPLE and names[o] == "dog" else _direction(a, b)


def _person(a: Box, b: Box, other: str) -> str | None:
    """What a person does with a thing that touches it."""
    if other in MOUNTS and _rides(a, b):
        return "riding"
    if other == "hat" and _wears(a, b):
        return "wearing"
    return "holding" if other in HANDHELD and _holds(a, b) else None


def _attached(a: Box, b: Box, name: str, other: str) -> bool:
    acts = name in PEOPLE and _person(a, b, other) is not None
    return acts or (name in SMALL and other in SUPPORTS and _rests_on(a, b))


def shared(a: Box, b: Box) -> tuple[int, int]:
    """Pixels that two boxes share along x and y; negative is the gap between them."""
    return min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])


def ambiguous(a: Box, b: Box) -> bool:
    """Whether two boxes overlap, or lie where the rules would turn on a pixel."""
    across, down = shared(a, b)
    gap = max(-across, -down)
    if gap < 2 or NEAR < gap < FAR:
        return True
    return gap <= NEAR and ASKEW < max(_part(across, a, b, 0), _part(down, a, b, 1)) < BESIDE


def _part(length: int, a: Box, b: Box, axis: int) -> float:
    return length / min(a[axis + 2] - a[axis], b[axis + 2] - b[axis])


def _direction(a: Box, b: Box) -> str:
    across, down = shared(a, b)
    if _part(down, a, b, 1) >= BESIDE:
        return "left of" if a[0] < b[0] else "right of"
    if _part(across, a, b, 0) >= BESIDE:
        return "above" if a[1] < b[1] else "under"
    return "near"


def _rides(a: Box, b: Box) -> bool:
    across, down = shared(a, b)
    return down > 6 and a[1] < b[1] and _part(across, a, b, 0) > 0.8


def _wears(a: Box, b: Box) -> bool:
    across, down = shared(a, b)
    return 0 < down < 10 and b[1] < a[1] and _part(across, a, b, 0) > 0.8


def _holds(a: Box, b: Box) -> bool:
    across, down = shared(a, b)
    return 0 < across < 8 and down > 0


def _rests_on(a: Box, b: Box) -> bool:
    across, down = shared(a, b)
    return 0 < down < 8 and a[1] < b[1] and _part(across, a, b, 0) > 0.8
