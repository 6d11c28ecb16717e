"""A matplotlib figure as SVG inside an HTML page."""

from __future__ import annotations

import io
import re
import warnings
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

NAMESPACE = re.compile(r"\{[^}]*\}")
REFERENCE = re.compile(r"#([\w.-]+)(?=\))")
PIXELS = 96 / 72  # of a point, in a browser
STABLE = {"svg.hashsalt": "linknet", "svg.fonttype": "none"}
NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def inline(figure: Figure, name: str, label: str) -> str:
    """The <svg> element: the same text for the same figure, without namespaces or metadata.

    Text stays text, so that the browser finds the glyphs of any script. `name` begins every id and
    must be unique within the page; `label` describes the figure to who cannot see it.
    """
    file = io.BytesIO()
    with matplotlib.rc_context(STABLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # the browser has it
        figure.savefig(file, format="svg", metadata=NO_METADATA)
    root = ElementTree.fromstring(file.getvalue())
    for element in root.iter():
        element.tag = NAMESPACE.sub("", element.tag)
        element.attrib = {NAMESPACE.sub("", key): x for key, x in element.attrib.items()}
    _drop(root, {"metadata", "style"})
    _rename(root, name)
    width = PIXELS * float(root.attrib["viewBox"].split()[2])
    root.attrib = {"viewBox": root.attrib["viewBox"], "role": "img", "aria-label": label}
    root.set("style", f"width: {width:.0f}px")
    return ElementTree.tostring(root, encoding="unicode")


def _drop(root: ElementTree.Element, tags: set[str]) -> None:
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in tags]:
            parent.remove(child)


def _rename(root: ElementTree.Element, name: str) -> None:
    """Ids that are referred to begin with `name`, the others vanish."""
    used = set()
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "href" and value.startswith("#"):
                used.add(value[1:])
                element.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                used.update(REFERENCE.findall(value))
                element.set(key, REFERENCE.sub(rf"#{name}-\1", value))
    for element in root.iter():
        own = element.attrib.pop("id", None)
        if own in used:
            element.set("id", f"{name}-{own}")
