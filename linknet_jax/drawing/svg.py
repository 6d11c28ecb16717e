"""A drawing as an SVG element: text stays text, escaped, and needs no other file."""

from __future__ import annotations

import base64
import io
from xml.etree.ElementTree import Element, SubElement, tostring

from PIL import Image

from linknet_jax.drawing import text
from linknet_jax.drawing.png import BASELINE, DASH, arrow_head, stem, upright
from linknet_jax.drawing.shapes import Drawing, Group, Line, Photograph, Rectangle, Shape, Text
from linknet_jax.report.labels import shorten

LONGEST_SIDE = 1000  # pixels of an embedded photograph
JPEG = {"quality": 85, "optimize": True}
TITLE = 120  # columns of the description


def render(drawing: Drawing, interactive: bool = False) -> str:
    """The <svg> element.

    Args:
      drawing: what to write.
      interactive: whether groups carry data-object or data-relation, their number in the graph,
        and the keyboard reaches objects, as the page's script needs.
    """
    width, height = (_short(x) for x in drawing.size)
    root = Element("svg", {"xmlns": "http://www.w3.org/2000/svg"})
    root.attrib |= {"viewBox": f"0 0 {width} {height}", "width": width, "height": height}
    root.set("class", "panel")
    root.attrib |= {"font-family": text.FAMILY, "role": "group" if interactive else "img"}
    root.set("aria-label", shorten(drawing.label, TITLE))
    for shape in drawing.shapes:
        _add(root, shape, interactive)
    return tostring(root, encoding="unicode")


def _add(parent: Element, shape: Shape, interactive: bool) -> None:
    if isinstance(shape, Group):
        _group(parent, shape, interactive)
    else:
        _WRITERS[type(shape)](parent, shape)


def _group(parent: Element, group: Group, interactive: bool) -> None:
    inner = SubElement(parent, "g")
    if group.shift != (0.0, 0.0):
        inner.set("transform", "translate({} {})".format(*map(_short, group.shift)))
    if interactive and group.kind:
        inner.set(f"data-{group.kind}", str(group.number))
    for shape in group.shapes:
        _add(inner, shape, interactive)


def _photograph(parent: Element, shape: Photograph) -> None:
    image = SubElement(parent, "image", _box(shape.box) | {"preserveAspectRatio": "none"})
    image.set("href", data_uri(shape.image))


def data_uri(image: Image.Image) -> str:
    """The photograph as JPEG, its longer side at most LONGEST_SIDE pixels."""
    small = upright(image)
    small.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    file = io.BytesIO()
    small.save(file, "JPEG", **JPEG)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()


def _rectangle(parent: Element, shape: Rectangle) -> None:
    element = SubElement(parent, "rect", _box(shape.box) | {"fill": shape.fill or "none"})
    if shape.radius:
        element.set("rx", _short(shape.radius))
    if shape.stroke:
        element.attrib |= _stroke(shape.stroke, shape.width, shape.dashed)


def _line(parent: Element, shape: Line) -> None:
    start, end = stem(shape)
    ends = zip(("x1", "y1", "x2", "y2"), (*start, *end), strict=True)
    stroke = _stroke(shape.colour, shape.width, shape.dashed)
    SubElement(parent, "line", {key: _short(x) for key, x in ends} | stroke)
    if shape.arrow:
        points = " ".join(f"{_short(x)},{_short(y)}" for x, y in arrow_head(shape))
        SubElement(parent, "polygon", {"points": points, "fill": shape.colour})


def _text(parent: Element, shape: Text) -> None:
    """`textLength` keeps every browser's typeface within the room that was measured."""
    x, y = shape.middle
    element = SubElement(parent, "text", {"text-anchor": "middle", "fill": shape.colour})
    if shape.turned:
        element.set("transform", f"translate({_short(x)} {_short(y)}) rotate(-90)")
        x, y = 0.0, 0.0
    element.attrib |= {"x": _short(x), "y": _short(y + BASELINE * shape.size)}
    element.attrib |= {"font-size": _short(shape.size), "lengthAdjust": "spacingAndGlyphs"}
    element.set("textLength", _short(text.width(shape.text, shape.size)))
    element.text = shape.text


_WRITERS = {Photograph: _photograph, Rectangle: _rectangle, Line: _line, Text: _text}


def _box(box: tuple[float, ...]) -> dict[str, str]:
    x1, y1, x2, y2 = box
    sides = {"x": x1, "y": y1, "width": max(x2 - x1, 0), "height": max(y2 - y1, 0)}
    return {key: _short(x) for key, x in sides.items()}


def _stroke(colour: str, width: float, dashed: bool) -> dict[str, str]:
    dash = {"stroke-dasharray": " ".join(map(_short, DASH))} if dashed else {}
    return {"stroke": colour, "stroke-width": _short(width)} | dash


def _short(x: float) -> str:
    return f"{x:.2f}".rstrip("0").rstrip(".")
