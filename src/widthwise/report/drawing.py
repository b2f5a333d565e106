"""A specification as SVG: by vl-convert where the `report` extra is installed, else by `plain.py`."""

import re
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
    return _tooltips(vega.vegalite_to_svg(spec, vl_version=VEGA_LITE)) if vega else plain.draw(spec)


def inline(svg: str, name: str, title: str) -> str:
    """Return an SVG made to stand in a page beside others: named, sized by the page, with its own ids."""
    svg = re.sub(r'\b(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    start, rest = svg.split(">", 1)
    return f'{start} role="img" aria-label="{title}">{rest}'


def _tooltips(svg: str) -> str:
    """Return the SVG with what Vega says to screen readers also said to a pointer."""
    return re.sub(r'(<path aria-label="([^"]*)"[^>]*aria-roledescription="point"[^>]*)/>', r"\1><title>\2</title></path>", svg)
