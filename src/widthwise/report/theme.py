"""How every figure looks: one palette in light and dark, shapes and dashes, one Vega-Lite configuration.

A figure is drawn in the light colours, as literals. The page turns each literal into its dark partner with
one CSS rule, so the same SVG is right in print, in a paper and on a dark screen.
"""

FONT = "'Helvetica Neue', Helvetica, Arial, sans-serif"

# Okabe-Ito for what is compared, viridis without its pale end for widths: (light, dark).
COLOURS = {
    "paper": ("#ffffff", "#17191c"),
    "ink": ("#1d1f23", "#e7e5e0"),
    "muted": ("#5c6068", "#a3a5a8"),
    "line": ("#b4b7bd", "#55585e"),
    "grid": ("#e6e7ea", "#2b2e33"),
    "zero": ("#3a3d43", "#c9c8c4"),
    "baseline": ("#6b6b6c", "#b5b5b4"),
    "blue": ("#0072b2", "#56b4e9"),
    "vermilion": ("#d55e00", "#f0894a"),
    "green": ("#009e73", "#35c79f"),
    "purple": ("#b0568b", "#e39ac4"),
    "amber": ("#a87900", "#f0c24b"),
    "width0": ("#440154", "#c3a2f2"),
    "width1": ("#3b528b", "#83a5f5"),
    "width2": ("#21918c", "#3cc4bd"),
    "width3": ("#4aa84a", "#74d055"),
    "width4": ("#9a9a12", "#f4e61e"),
}
LIGHT = {role: light for role, (light, _) in COLOURS.items()}
WIDTHS = tuple(LIGHT[f"width{k}"] for k in range(5))
SHAPES = ("circle", "square", "diamond", "triangle-up", "triangle-down")
DASHES = ((1, 0), (6, 3), (2, 2), (8, 3, 2, 3), (1, 3))


def config() -> dict:
    """Return the Vega-Lite configuration that every figure carries."""
    label = {"labelFont": FONT, "labelFontSize": 12, "labelColor": LIGHT["ink"]}
    title = {
        "titleFont": FONT,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titleColor": LIGHT["muted"],
    }
    return {
        "background": LIGHT["paper"],
        "padding": 6,
        "font": FONT,
        "view": {"stroke": None},
        "concat": {"spacing": 26},
        "axis": {
            **label,
            **title,
            "domainColor": LIGHT["line"],
            "tickColor": LIGHT["line"],
            "gridColor": LIGHT["grid"],
            "titlePadding": 8,
            "labelPadding": 5,
            "tickSize": 4,
        },
        "axisY": {"domain": False, "ticks": False},
        "legend": {
            **label,
            **title,
            "orient": "top",
            "labelLimit": 340,
            "symbolSize": 70,
            "symbolStrokeWidth": 2,
            "columnPadding": 22,
            "rowPadding": 5,
            "offset": 14,
        },
        "title": {
            "font": FONT,
            "fontSize": 13,
            "fontWeight": 600,
            "color": LIGHT["ink"],
            "subtitleFont": FONT,
            "subtitleFontSize": 12,
            "subtitleColor": LIGHT["muted"],
            "subtitlePadding": 4,
            "anchor": "start",
            "frame": "group",
            "offset": 10,
        },
    }


def recolour() -> str:
    """Return the CSS rules that turn a figure's light colours into the dark ones."""
    return "\n".join(
        f'figure svg [{paint}="{light}"] {{ {paint}: {dark}; }}'
        for light, dark in COLOURS.values()
        for paint in ("fill", "stroke")
    )
