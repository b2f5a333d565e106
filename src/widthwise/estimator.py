"""Ridge regression as a scikit-learn estimator: streamed, many targets, each with a penalty chosen by cross-validation.

numpy in, numpy out; torch in, torch out, on its device. Only moments of the rows are kept.
"""

import math
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from sklearn.base import BaseEstimator, MultiOutputMixin, RegressorMixin
from sklearn.metrics import r2_score
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from widthwise.columns import CHUNK
from widthwise.errors import DataError, UsageError
from widthwise.refit import Dealt, Solution, double, solve
from widthwise.regression import Options, given


class SpanRegressor(MultiOutputMixin, RegressorMixin, BaseEstimator):
    """Ridge regression of many targets, the penalty of each chosen by cross-validation.

    Penalties are relative, as in `span_error`: to the mean sum of squares of a centred feature that varies. The
    intercept is not penalised. The curve of held-out error, summed over the folds, chooses; the refit on all rows
    keeps the absolute penalty that the folds' fits had, on average.

    Arrays are numpy (or what scikit-learn takes as such) or torch; predictions are of the kind, device and floating
    type of their rows, attributes of the kind that was fitted. Sums, attributes and the arithmetic of predictions
    are in float64. Sums and fits are made on the device of the first rows.

    Args:
        penalties: relative ridge penalties; half decades from 1e-9 to 10 if left out.
        folds: number of folds; of fewer rows, each is one.
        per_target: a penalty for every target; False shares the one with the least sum of squared errors.
        interpolate: read the best penalty off a spline through the grid; False takes the best grid point.
        standardize: divide features by their standard deviations (floored) where they are penalised.

    Example:
        >>> import numpy as np
        >>> X = np.random.default_rng(0).normal(size=(200, 3))
        >>> model = SpanRegressor().fit(X, X @ [1.0, 2.0, 3.0] + 4)
        >>> model.coef_.round(6)
        array([1., 2., 3.])
        >>> model.predict(np.ones((1, 3))).round(6)
        array([10.])
    """

    def __init__(
        self,
        penalties: Any = None,
        *,
        folds: int = 5,
        per_target: bool = True,
        interpolate: bool = True,
        standardize: bool = False,
    ):
        self.penalties = penalties
        self.folds = folds
        self.per_target = per_target
        self.interpolate = interpolate
        self.standardize = standardize

    def fit(self, X: Any, y: Any) -> "SpanRegressor":
        """Fit on these rows alone: X (rows, features), y (rows, targets) or (rows,).

        Raises:
            UsageError: for options that cannot be.
            DataError: for values that are not finite, rows that do not match, or a single row.
        """
        self.__dict__.pop("_dealt", None)
        self.partial_fit(X, y)
        self._solution = self._solve()
        return self

    def partial_fit(self, X: Any, y: Any) -> "SpanRegressor":
        """Add a batch of rows to those of `fit` or `partial_fit` before.

        A row's fold depends only on how many rows came before it, so after the last batch the model is, to
        rounding, that of `fit` on all rows in the same order. It is solved when it is next asked for something.
        """
        self._options()
        fresh = not self.__sklearn_is_fitted__()
        X = self._features(X, reset=fresh)
        Y = _targets(y, len(X))
        if fresh:
            self._begin(X, Y)
        self._check_goes_on(Y)
        self._dealt.add(X, Y if Y.ndim == 2 else Y[:, None])
        self._solution = None
        return self

    def predict(self, X: Any) -> Any:
        """Return the predictions of rows: (rows, targets), or (rows,) if y was a vector."""
        check_is_fitted(self)
        X, device = self._features(X), _device(X)
        W, intercept = self._solved.coef.T.to(device), self._solved.intercept.to(device)
        found = [torch.addmm(intercept, double(X[k : k + CHUNK], device), W) for k in range(0, len(X), CHUNK)]
        predicted = torch.cat(found).view(len(X), *self._shape)
        if isinstance(X, Tensor):
            return predicted.to(X.dtype) if X.is_floating_point() else predicted
        return predicted.numpy().astype(X.dtype if X.dtype.kind == "f" else np.float64, copy=False)

    def score(self, X: Any, y: Any, sample_weight: Any = None) -> float:
        """Return R^2 of the predictions, averaged over targets."""
        return r2_score(_numpy(y), _numpy(self.predict(X)), sample_weight=_numpy(sample_weight))

    @property
    def coef_(self) -> Any:
        """Coefficients: (targets, features), or (features,) if y was a vector."""
        return self._told(self._solved.coef.reshape(*self._shape, -1))

    @property
    def intercept_(self) -> Any:
        """Intercepts: (targets,), or a number if y was a vector."""
        return self._told(self._solved.intercept.view(self._shape))

    @property
    def penalty_(self) -> Any:
        """Relative penalties: (targets,), or a number if there is one for all; infinity where the mean was best."""
        return self._told(self._penalty(self._solved.penalty))

    @property
    def absolute_penalty_(self) -> Any:
        """Penalties as they are added to the sums of squares, which scikit-learn's `Ridge` calls alpha.

        With `standardize`, of features that have a variance of 1.
        """
        return self._told(self._penalty(self._solved.absolute))

    @property
    def error_(self) -> Any:
        """Span errors, squared error / squares about the mean: (targets,), or a number if y was a vector.

        Of held-out rows, every fold's at the penalty that is best on the other folds. NaN: the target is constant.
        """
        return self._told(self._solved.error.view(self._shape))

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "_dealt")

    # Inside -----------------------------------------------------------------------------------------------

    def _begin(self, X: Any, Y: Any) -> None:
        """Remember of the first rows what all others share."""
        self._torch, self._shape = isinstance(X, Tensor), tuple(Y.shape[1:])
        self._dealt = Dealt(self.folds, X.shape[1], math.prod(self._shape), _device(X))

    def _check_goes_on(self, Y: Any) -> None:
        """Raise if rows cannot join those before."""
        if self._shape != tuple(Y.shape[1:]):
            before = ", ".join(["rows", *map(str, self._shape)])
            raise DataError(f"y is of shape {tuple(Y.shape)}, of earlier rows ({before}); start again with fit.")
        if self.folds != len(self._dealt.cells):
            raise UsageError(
                f"folds is {self.folds}, but earlier rows were dealt to {len(self._dealt.cells)}; set it back, or "
                "start again with fit."
            )

    @property
    def _solved(self) -> Solution:
        check_is_fitted(self)
        if self._solution is None:
            self._solution = self._solve()
        return self._solution

    def _solve(self) -> Solution:
        return solve([cell for cell in self._dealt.cells if cell.n], self._dealt.features, self._options())

    def _options(self) -> Options:
        if isinstance(self.folds, bool) or not isinstance(self.folds, int | np.integer) or self.folds < 2:
            raise UsageError(f"folds must be a whole number, 2 or more; not {self.folds!r}.")
        return Options(given(self.penalties), self.interpolate, self.per_target, self.standardize)

    def _features(self, X: Any, reset: bool = False) -> Any:
        """Return X as a tensor or an array (rows, features), checked by scikit-learn's rules and for finite values."""
        if isinstance(X, Tensor):
            X = X.detach()
            if X.ndim != 2 or 0 in X.shape or X.is_complex():
                raise DataError(f"X must be a matrix (rows, features) of real numbers; it is {_sort(X)}.")
            validate_data(self, X, reset=reset, skip_check_array=True)
        else:
            X = validate_data(self, X, reset=reset, ensure_all_finite=False)
        _check_finite("X", X)
        return X

    def _penalty(self, penalty: Float[Tensor, " targets"]) -> Tensor:
        """Return one number of penalties that are one, whether shared or of one target."""
        return penalty.view(self._shape) if self.per_target else penalty[0]

    def _told(self, value: Tensor) -> Any:
        """Return a result as what came in; of numpy, a single value as a number."""
        if self._torch:
            return value.to(self._dealt.device)
        return value.cpu().numpy() if value.ndim else float(value)


def _targets(y: Any, rows: int) -> Any:
    """Return y as a tensor or an array of one or two dimensions, checked."""
    if y is None:
        raise UsageError("SpanRegressor requires y to be passed, but the target y is None.")
    Y = (
        y.detach()
        if isinstance(y, Tensor)
        else check_array(y, ensure_2d=False, ensure_all_finite=False, input_name="y")
    )
    if Y.ndim not in (1, 2) or 0 in Y.shape or (isinstance(Y, Tensor) and Y.is_complex()):
        raise DataError(f"y must be (rows,) or (rows, targets) of real numbers; it is {_sort(Y)}.")
    if len(Y) != rows:
        raise DataError(f"X has {rows} rows and y {len(Y)}; each row of y belongs to the same row of X.")
    _check_finite("y", Y if Y.ndim == 2 else Y[:, None])
    return Y


def _check_finite(name: str, rows: Any) -> None:
    """Raise a DataError that names the first value that is not finite."""
    for start in range(0, len(rows), CHUNK):
        some = double(rows[start : start + CHUNK], _device(rows))
        bad = (~some.isfinite()).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            value = "NaN" if bool(some[row, column].isnan()) else "infinite"
            raise DataError(f"{name}: row {start + row}, column {column} is {value}; leave such rows out.")


def _device(values: Any) -> torch.device:
    return values.device if isinstance(values, Tensor) else torch.device("cpu")


def _numpy(values: Any) -> Any:
    return values.detach().cpu().double().numpy() if isinstance(values, Tensor) else values


def _sort(values: Any) -> str:
    return f"of shape {tuple(values.shape)} and type {values.dtype}"
