"""Four words for a claim, and the rules that give them (DEFINITIONS 6)."""

import itertools
import math
from collections.abc import Sequence

CONFIRMED = "confirmed"
OPPOSITE = "opposite"
NOT_CONFIRMED = "not confirmed here"
BELOW_RESOLUTION = "below resolution"


def gap(
    *,
    low: float,
    high: float,
    margin: float,
    elsewhere: Sequence[float | None],
    extrapolated: Sequence[float | None],
    standardized: float,
    wide: int,
) -> str:
    """Return the word for a span gap at one width.

    Args:
        low, high: its interval over networks on the validation split, at the verdict's level.
        margin: d = max(0.002, 0.1 * baseline span error).
        elsewhere: the gap's estimates on the test and unseen splits; None where there are no such rows, and
            then neither "confirmed" nor "opposite" can be said, but "not confirmed here" can.
        extrapolated: its extrapolations in n; None where one does not exist (then the other decides;
            without both "confirmed" cannot be said).
        standardized: its estimate with standardised sources.
        wide: number of wide networks; fewer than 3 resolve nothing.
    """
    if wide < 3 or not math.isfinite(low):
        return BELOW_RESOLUTION
    limits = [limit for limit in extrapolated if limit is not None]
    known = [value for value in elsewhere if value is not None]
    all_known = len(known) == len(elsewhere)
    if low > margin:
        if any(value <= 0 for value in known):
            return NOT_CONFIRMED
        sure = all_known and len(limits) > 0 and all(limit > margin for limit in limits) and standardized > 0
        return CONFIRMED if sure else BELOW_RESOLUTION
    if high < -margin and all_known and not any(value >= 0 for value in known):
        return OPPOSITE
    return NOT_CONFIRMED if high < margin else BELOW_RESOLUTION


def gap_overall(words: Sequence[str], estimates: Sequence[float]) -> str:
    """Return the word for finding 3.1 over widths, widest first.

    Confirmed: at the two smallest widths, and the estimates do not fall as width falls; never a single width.
    Otherwise the word that all widths share, or "not confirmed here" where each says something.
    """
    rising = all(b >= a for a, b in itertools.pairwise(estimates))
    if len(words) >= 2 and all(word == CONFIRMED for word in words[-2:]) and rising:
        return CONFIRMED
    if words and all(word == OPPOSITE for word in words):
        return OPPOSITE
    decided = bool(words) and BELOW_RESOLUTION not in words and list(words) != [CONFIRMED]
    return NOT_CONFIRMED if decided else BELOW_RESOLUTION


def performance(*, low: float, high: float, margin: float, wide: int) -> str:
    """Return the word for finding 3.2 at one width, from the interval of D = FP(C_m) - FP(M_1)."""
    if wide < 2 or not math.isfinite(low):
        return BELOW_RESOLUTION
    if high < -margin:
        return CONFIRMED
    return NOT_CONFIRMED if low > -margin else BELOW_RESOLUTION


def residuals(*, gain: tuple[float, float], reverse: tuple[float, float], margin: float, wide: int) -> str:
    """Return the word for residuals at one width.

    Args:
        gain: low and high of what a wide network's residuals add to narrow networks, more than others' do.
        reverse: low and high of what the narrow ones' residuals add to a wide network.
        margin: epsilon, what counts.
        wide: number of wide networks; fewer than 3 resolve nothing.
    """
    if wide < 3 or not all(map(math.isfinite, (*gain, *reverse))):
        return BELOW_RESOLUTION
    if gain[0] > margin and reverse[1] < margin:
        return CONFIRMED
    return NOT_CONFIRMED if gain[1] < margin or reverse[0] > margin else BELOW_RESOLUTION


def overall(words: Sequence[str]) -> str:
    """Return the word that all widths share; "not confirmed here" where any says so; else below resolution."""
    if len(set(words)) == 1:
        return words[0]
    return NOT_CONFIRMED if NOT_CONFIRMED in words else BELOW_RESOLUTION
