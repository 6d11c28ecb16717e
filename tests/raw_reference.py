"""Raw Visual Genome to VG150 in slow loops, written from docs/data.md; files for tests."""

import json
import math
import string

from etils import epath

REMOVED = {1592, 1722, 4616, 4617}
FILES = ("objects.json", "relationships.json", "image_data.json")


def write(folder, objects, relations, images):
    """The three files; each argument maps an image id to its list, or its (width, height)."""
    contents = (
        [{"image_id": i, "objects": rows, "image_url": ""} for i, rows in objects.items()],
        [{"relationships": rows, "image_id": i} for i, rows in relations.items()],
        [{"image_id": i, "width": w, "height": h, "url": ""} for i, (w, h) in images.items()],
    )
    for name, content in zip(FILES, contents, strict=True):
        (folder / name).write_text(json.dumps(content))
    return epath.Path(folder)


def object_(number, x, y, w, h, *names):
    """An entry of objects.json."""
    box = {"x": x, "y": y, "w": w, "h": h}
    return {"object_id": number, **box, "names": list(names), "synsets": []}


def relation(subject, predicate, object_):
    """An entry of relationships.json, which spells the first name of both objects `name`."""
    ends = [{k: v for k, v in o.items() if k != "names"} for o in (subject, object_)]
    for end, o in zip(ends, (subject, object_), strict=True):
        end["name"] = o["names"][0]
    return {"predicate": predicate, "subject": ends[0], "object": ends[1], "synsets": []}


def clean(name):
    spelled = {"½": "half", "¢": "cent", "°": " degree", "ç": "c", "û": "u", "é": "e", "è": "e"}
    result = ""
    for c in name.strip(" "):
        c = spelled.get(c, c)
        c = c.lower() if c in string.ascii_uppercase else c
        result += "" if c in "—™…" + string.punctuation else c
    return result


def aliases(lines):
    meaning = {}
    for line in lines:
        names = line.split(",")
        target = meaning.get(names[0], names[0])
        for name in names:
            meaning[name] = target
    return meaning


def overlap(a, b):
    """Intersection over the enclosing hull of two xyxy boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return (
        width * height / ((max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1])))
    )


def inside(a, b):
    return a[0] >= b[0] and a[1] >= b[1] and a[2] <= b[2] and a[3] <= b[3]


def kind(a, b, name_a, name_b):
    if a == b or overlap(a, b) > 0.9:
        return 1
    if name_a != name_b:
        return 0
    if inside(a, b) or inside(b, a):
        return 2
    return 3 if overlap(a, b) > 0.6 else 0


def merge(corners, names):
    """[(x, y, w, h), [members]] and the kind by which each box was merged (0 = it stays)."""
    kinds, merged = [0] * len(corners), []
    for i in range(len(corners)):
        if kinds[i]:
            continue
        members = [i]
        for j in range(i + 1, len(corners)):
            if not kinds[j] and (k := kind(corners[i], corners[j], names[i], names[j])):
                kinds[j] = k
                members.append(j)
        columns = list(zip(*(corners[m] for m in members), strict=True))
        if max(kinds[m] for m in members) > 1:
            box = [min(columns[0]), min(columns[1]), max(columns[2]), max(columns[3])]
        else:
            box = [sum(column) / len(members) for column in columns]
        x, y = int(box[0]), int(box[1])
        merged.append(((x, y, int(box[2] - box[0]), int(box[3] - box[1])), members))
    return merged, kinds


def encode(box, side):
    """cx, cy, w, h in the square of 1024."""
    scale = 1024 / side
    low = [min(max(math.floor(scale * (v - 1)), 0), 1022) for v in box[:2]]
    size = [min(math.ceil(scale * v), 1024 - at) for v, at in zip(box[2:], low, strict=True)]
    return [*(at + n // 2 for at, n in zip(low, size, strict=True)), *size]


def pixels(stored, side):
    cx, cy, w, h = stored
    x, y = math.trunc(cx - w / 2), math.trunc(cy - h / 2)
    return [v * (side / 1024) for v in (x, y, x + w, y + h)]


def convert(objects, relations, images, vocabulary, object_lines=(), predicate_lines=()):
    """{image id: (boxes, labels, relations)}; labels and predicates are names."""
    explain, explain_predicate = aliases(object_lines), aliases(predicate_lines)
    gathered, counts = {}, {}
    for i, (width, height) in images.items():
        if i in REMOVED:
            continue
        rows = [(o["object_id"], *(o[k] for k in "xywh"), o["names"]) for o in objects[i]]
        known = {row[0] for row in rows}
        for r in relations[i]:
            for o in (r["subject"], r["object"]):
                if o["object_id"] not in known:
                    rows.append((o["object_id"], *(o[k] for k in "xywh"), [o["name"]]))
        rows = [row for row in rows if row[3] * row[4] > 0.002 * width * height]
        names = [[explain.get(clean(n), clean(n)) for n in row[5]] for row in rows]
        corners = [(x, y, x + w, y + h) for _, x, y, w, h, _ in rows]
        merged, _ = merge(corners, [own[0] for own in names])
        gathered[i] = [
            (box, [rows[m][0] for m in members], {n for m in members for n in names[m]})
            for box, members in merged
        ]
        for _, _, own in gathered[i]:
            for n in own:
                counts[n] = counts.get(n, 0) + 1
    result = {}
    for i, found in gathered.items():
        boxes, labels, number = [], [], {}
        for box, ids, own in found:
            usable = sorted(n for n in own if n in vocabulary[0])
            if usable:
                number |= dict.fromkeys(ids, len(boxes))
                boxes.append(pixels(encode(box, max(images[i])), max(images[i])))
                labels.append(max(usable, key=lambda n: counts[n]))
        kept = []
        for r in relations[i]:
            s, o = (number.get(r[role]["object_id"]) for role in ("subject", "object"))
            verb = explain_predicate.get(clean(r["predicate"]), clean(r["predicate"]))
            if s is not None and o is not None and s != o and verb in vocabulary[1]:
                kept.append((s, o, verb))
        result[i] = (boxes, labels, kept)
    return result
