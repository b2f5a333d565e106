"""Rows and epochs for a time: the part of a study that fits it, chosen once and kept in the store."""

import json
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from widthwise import config, cost, samples, words
from widthwise.errors import UsageError
from widthwise.store import Store

KIND = "budgets"
UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
FEWEST_ROWS = 1000
FEWEST_EPOCHS = 3  # or a quarter of the file's, where that is more


def seconds(text: str) -> float:
    """Return a time such as 90s, 30m, 1.5h or 2d in seconds.

    Raises:
        UsageError: if it is none.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd])", text.strip())
    if match is None or float(match[1]) == 0:
        raise UsageError(f'--budget is a time such as 30m, 2h or 1d, not "{text}".')
    return float(match[1]) * UNITS[match[2]]


def fitted(
    study: config.Study,
    store: Store,
    within: float,
    *,
    device: str = "cpu",
    jobs: int | None = None,
    fleet_size: int | None = None,
) -> tuple[config.Study, str]:
    """Return the study with as many rows and epochs as fit a time, and in words what was picked.

    All rows that leave a quarter of the file's epochs, and the epochs that fit then; with too few of them, half the
    rows, and so on. What was picked for a study and a time is kept in the store, so that the same command goes on
    where it stopped though the machine be busier or faster.

    Raises:
        UsageError: if not even the smallest part fits, or networks train on fresh samples.
    """
    if study.training.fresh:
        raise UsageError("--budget picks rows of a data set; of fresh samples set training.epochs, and see `plan`.")
    by = {"device": device, "jobs": jobs, "fleet_size": fleet_size}
    key = config.digest([study.plain(), round(within), device, jobs, *([fleet_size] if fleet_size else [])])
    kept = store.get(KIND, key)
    if kept is None:
        rows, epochs, takes = _pick(study, store, within, by)
        picked = {"rows": rows, "epochs": epochs, "seconds": takes}
        kept = store.make(KIND, key, lambda folder: _write(folder, picked), {"title": study.title})
    rows, epochs, takes = (kept.json("picked")[name] for name in ("rows", "epochs", "seconds"))
    count = "all" if isinstance(rows, str) else f"{rows:,}"
    told = (
        f"--budget {words.duration(within)}: {count} rows (the file has {study.data.rows}) and {epochs} epochs "
        f"(the file has {study.training.epochs}), about {words.duration(takes)} when it was picked."
    )
    return _with(study, rows, epochs), told


def _pick(study: config.Study, store: Store, within: float, by: dict[str, Any]) -> tuple[int | str, int, float]:
    """Return rows, epochs and the seconds that they take."""
    samples.decode(study.data, store)  # how many rows there are is not to be guessed
    wanted = study.training.epochs
    fewest = min(wanted, max(FEWEST_EPOCHS, math.ceil(wanted / 4)))
    rows, least = study.data.rows, 0.0
    for rows in _shares(study.data.rows, cost.rows_of(study, store)):
        parts = cost.plan(_with(study, rows, wanted), store, **by).seconds
        fixed, training = sum(parts.values()) - parts["training"], parts["training"]
        fits = fixed + training <= within
        epochs = wanted if fits else math.floor((within - fixed) / training * wanted) if training else -1
        if epochs >= fewest:
            return rows, epochs, fixed + training * epochs / max(wanted, 1)
        least = fixed + training * fewest / max(wanted, 1)
    count = rows if isinstance(rows, str) else f"{rows:,}"
    raise UsageError(
        f"{words.duration(within)} are too few for this study: {fewest} epochs of {count} rows take about "
        f"{words.duration(least)}. Use fewer widths, a narrower network.base, fewer epochs, or more time."
    )


def _shares(given: int | str, rows: int) -> Sequence[int | str]:
    """Return the file's rows, half of them, a quarter, ... down to about a thousand."""
    halves = range(1, max(0, math.floor(math.log2(max(1, rows / FEWEST_ROWS)))) + 1)
    return [given, *(rows // 2**k for k in halves)]


def _write(folder: Path, picked: dict) -> None:
    (folder / "picked.json").write_text(json.dumps(picked, indent=1))


def _with(study: config.Study, rows: int | str, epochs: int) -> config.Study:
    data = study.data.model_copy(update={"rows": rows})
    training = study.training.model_copy(update={"epochs": epochs})
    return study.model_copy(update={"data": data, "training": training})
