"""What one wide network knows that many narrow ones, put together, do not, and the other way round.

The names below are the public surface. Each is loaded when it is first asked for, so that
`import widthwise` and `widthwise --help` wait for neither torch nor numpy.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from widthwise.array_gap import span_gap
    from widthwise.columns import concatenate
    from widthwise.config import load_study
    from widthwise.cost import plan
    from widthwise.errors import DataError, NumericsWarning, StorageError, UsageError, WidthwiseError
    from widthwise.estimator import SpanRegressor
    from widthwise.executors.base import run
    from widthwise.linalg.moments import Moments
    from widthwise.measures.growth_curve import growth_curve
    from widthwise.measures.probe_accuracy import probe_accuracy
    from widthwise.measures.span_error import span_error
    from widthwise.networks.base import count_matching
    from widthwise.store import Store

    __version__: str

__all__ = [
    "DataError",
    "Moments",
    "NumericsWarning",
    "SpanRegressor",
    "StorageError",
    "Store",
    "UsageError",
    "WidthwiseError",
    "concatenate",
    "count_matching",
    "growth_curve",
    "load_study",
    "plan",
    "probe_accuracy",
    "run",
    "span_error",
    "span_gap",
]

_HOME = {
    "DataError": "errors",
    "Moments": "linalg.moments",
    "NumericsWarning": "errors",
    "SpanRegressor": "estimator",
    "StorageError": "errors",
    "Store": "store",
    "UsageError": "errors",
    "WidthwiseError": "errors",
    "concatenate": "columns",
    "count_matching": "networks.base",
    "growth_curve": "measures.growth_curve",
    "load_study": "config",
    "plan": "cost",
    "probe_accuracy": "measures.probe_accuracy",
    "run": "executors.base",
    "span_error": "measures.span_error",
    "span_gap": "array_gap",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("widthwise")
    if name not in _HOME:
        raise AttributeError(f"module 'widthwise' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"widthwise.{_HOME[name]}"), name)
    globals()[name] = value  # the next look-up does not come here
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
