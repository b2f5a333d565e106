"""Where an error goes as rows grow without end, from a quarter, a half and all of them."""


def richardson(half: float, full: float) -> float:
    """Return 2 F(n) - F(n/2): the limit of an error that falls as 1 / n."""
    return 2 * full - half


def aitken(quarter: float, half: float, full: float) -> float | None:
    """Return F(n) - D2^2 / (D1 - D2), with D1 = F(n/4) - F(n/2) and D2 = F(n/2) - F(n).

    None unless 0 < D2 < D1: there is no geometric sequence through the three (Aitken 1926).
    """
    D1, D2 = quarter - half, half - full
    return full - D2**2 / (D1 - D2) if 0 < D2 < D1 else None
