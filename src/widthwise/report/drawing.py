"""A specification as SVG: by vl-convert where the `report` extra is installed, else by `plain.py`."""

import re
from html import escape
from types import ModuleType

from widthwise.report import plain

VEGA_LITE = "6.1"
"""The version that both altair 6 and vl-convert speak: a specification means the same in each."""


def converter() -> ModuleType | None:
    """Return vl-convert, or None where it is not installed."""
    try:
        import vl_convert
    except ImportError:
        return None
    return vl_convert


def draw(spec: dict) -> str:
    """Return a specification as one SVG in the light colours, the same bytes for the same specification."""
    vega = converter()
    return _tidy(vega.vegalite_to_svg(spec, vl_version=VEGA_LITE)) if vega else plain.draw(spec)


def inline(svg: str, name: str, title: str) -> str:
    """Return an SVG made to stand in a page beside others: named, sized by the page, with its own ids."""
    svg = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    start, rest = svg.split(">", 1)
    return f'{start} role="img" aria-label="{escape(title)}">{rest}'


def _tidy(svg: str) -> str:
    """Return the SVG with a pointer's words on its points, and without what only fills a file.

    Vega says what each mark is to screen readers; in a page the figure is one image with one name, and its
    numbers are in the tables.
    """
    svg = re.sub(
        r'(<path aria-label="([^"]*)"[^>]*aria-roledescription="point"[^>]*)/>',
        r"\1><title>\2</title></path>",
        svg,
    )
    svg = re.sub(r' (aria-[a-z]+|role|pointer-events)="[^"]*"', "", svg)
    svg = re.sub(r'<path class="(background|foreground)" d="[^"]*"( display="none")?/>', "", svg)
    return re.sub(r' (transform|d|[xy]2?)="[^"]*"', lambda place: re.sub(r"(\.\d\d)\d+", r"\1", place[0]), svg)
