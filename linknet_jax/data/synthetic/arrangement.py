"""How things get into a synthetic scene: groups that touch, put where there is room."""

from __future__ import annotations

import random

from linknet_jax.data.synthetic import world
from linknet_jax.data.synthetic.world import Thing

AREA = (1, 45, 127, 127)  # where objects may lie; sun and moon end at y = 18
MOST_THINGS = 10
SIZES = {
    "tree": (24, 34), "man": (18, 30), "woman": (18, 30), "child": (18, 22), "canine": (26, 18),
    "flyer": (22, 18), "disc": (18, 18), "table": (30, 20), "box": (20, 20), "horse": (30, 25),
    "car": (31, 20), "bike": (28, 21), "cup": (18, 18), "kite": (18, 24), "hat": (20, 18),
    "umbrella": (24, 22),
}  # fmt: skip
SINGLES = {
    "canine": 20, "disc": 16, "flyer": 24, "tree": 10, "box": 6, "horse": 4, "car": 5, "bike": 2,
    "cup": 2, "kite": 2, "hat": 2, "umbrella": 2,
}  # fmt: skip
BULKY = ("tree", "box", "car", "horse", "bike", "canine")
TRIES = 80  # places for a group, before it is left out


def arrange(rng: random.Random) -> list[Thing]:
    """At most ten things, rearmost first; people and tables are in about half of the scenes."""
    people, table = rng.random() < 0.62, rng.random() < 0.5
    target = rng.choice((3, 4, 5, 6, 7, 7, 8, 8, 9, 10, 10))
    groups = [_doing(rng)] if people else []
    groups += [_put_on(rng, "table")] if table else []
    while sum(len(x) for x in groups) < target:
        groups.append(_group(rng, people))
    things: list[Thing] = []
    for group in groups:
        if len(things) + len(group) <= MOST_THINGS:
            things += _place(rng, group, things)
    return things


def _group(rng: random.Random, people: bool) -> list[Thing]:
    """One thing, or several that touch; around the origin."""
    draw = rng.random()
    if draw < 0.06:
        return _put_on(rng, "box")
    if draw < 0.2:
        return _occlude(rng)
    if people and draw < 0.32:
        return _doing(rng)
    return [_sized(rng, rng.choices(list(SINGLES), list(SINGLES.values()))[0])]


def _doing(rng: random.Random) -> list[Thing]:
    """A person, often with what they ride, wear or hold."""
    return rng.choice((_ride, _wear, _hold, _hold, _single_person, _single_person))(rng)


def _sized(rng: random.Random, icon: str) -> Thing:
    """An icon around the origin, at least 18 pixels wide and high."""
    grow = rng.uniform(0.95, 1.15)
    w, h = (max(18, round(v * grow)) for v in SIZES[icon])
    return Thing(icon, (-(w // 2), -(h // 2), w - w // 2, h - h // 2))


def _moved(thing: Thing, dx: int, dy: int) -> Thing:
    x1, y1, x2, y2 = thing.box
    return Thing(thing.icon, (x1 + dx, y1 + dy, x2 + dx, y2 + dy))


def _person(rng: random.Random) -> Thing:
    return _sized(rng, rng.choice(("man", "man", "woman", "woman", "child")))


def _single_person(rng: random.Random) -> list[Thing]:
    return [_person(rng)]


def _ride(rng: random.Random) -> list[Thing]:
    mount, rider = _sized(rng, rng.choice(("horse", "horse", "bike"))), _person(rng)
    rise = mount.box[1] - rider.box[3] + rng.randrange(9, 13)
    return [mount, _moved(rider, rng.randrange(-3, 4), rise)]


def _wear(rng: random.Random) -> list[Thing]:
    person, hat = _person(rng), _sized(rng, "hat")
    return [person, _moved(hat, rng.randrange(-1, 2), person.box[1] - hat.box[3] + 6)]


def _hold(rng: random.Random) -> list[Thing]:
    person, held = _person(rng), _sized(rng, rng.choice(("umbrella", "kite", "kite", "cup")))
    dx = person.box[2] - held.box[0] - rng.randrange(3, 6)
    side = dx if rng.random() < 0.5 else person.box[0] - held.box[2] + rng.randrange(3, 6)
    return [person, _moved(held, side, rng.randrange(-8, 3))]


def _put_on(rng: random.Random, support: str) -> list[Thing]:
    """A support, often with something on it."""
    below = _sized(rng, support)
    if rng.random() < 0.4:
        return [below]
    top = _sized(rng, rng.choice(("disc", "disc", "disc", "cup", "hat")))
    slack = max(0, (below.box[2] - below.box[0] - top.box[2] + top.box[0]) // 2)
    rise = below.box[1] - top.box[3] + rng.randrange(3, 6)
    return [below, _moved(top, rng.randrange(-slack, slack + 1), rise)]


def _occlude(rng: random.Random) -> list[Thing]:
    """Two things of any two classes: only the pixels tell which one is in front."""
    rear, front = (_sized(rng, x) for x in rng.sample(BULKY, 2))
    across = (rear.box[2] - rear.box[0] + front.box[2] - front.box[0]) // 2 - rng.randrange(12, 17)
    return [rear, _moved(front, rng.choice((-1, 1)) * across, rng.randrange(-6, 7))]


def _place(rng: random.Random, group: list[Thing], things: list[Thing]) -> list[Thing]:
    """The group somewhere free, where no rule turns on a pixel; nothing where there is no room."""
    boxes = [x.box for x in group]
    x1, y1 = min(b[0] for b in boxes), min(b[1] for b in boxes)
    x2, y2 = max(b[2] for b in boxes), max(b[3] for b in boxes)
    width, height = AREA[2] - AREA[0] - (x2 - x1), AREA[3] - AREA[1] - (y2 - y1)
    for _ in range(TRIES):
        dx = AREA[0] - x1 + int(rng.random() * (width + 1))
        dy = AREA[1] - y1 + int(rng.random() * (height + 1))
        moved = [_moved(x, dx, dy) for x in group]
        if not any(world.ambiguous(a.box, b.box) for a in moved for b in things):
            return moved
    return []
