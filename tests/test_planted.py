"""The whole of Widthwise on features whose answers are known: `recipes/planted.yaml`, through the command itself."""

import json
import math
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import pytest

from widthwise.features import load_network
from widthwise.store import Store

RECIPE = Path(__file__).parents[1] / "recipes" / "planted.yaml"


@pytest.mark.slow
def test_a_study_finds_what_was_planted(tmp_path):
    """FSE, FP and the residuals' gain lie in their intervals over rows."""
    command = [sys.executable, "-m", "widthwise", "run", str(RECIPE), "--json", "--store", str(tmp_path)]
    done = subprocess.run(command, capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    rows = json.loads(done.stdout)

    def found(study, measure, statistic, over="rows", **where):
        where |= {"study": study, "measure": measure, "statistic": statistic, "interval_over": over}
        (row,) = [row for row in rows if all(row[name] == value for name, value in where.items())]
        return row

    share = unseen_share(Store(tmp_path))
    at = {"width": "1/4", "matching": "parameters"}
    for split in ("validation", "test", "unseen"):
        span = found("width_gap", "span_error", "mean", split=split, **at)
        assert span["low"] < share < span["high"], split
    gap = found("width_gap", "span_gap", "mean", "networks", split="validation", **at)
    assert gap["low"] < share < gap["high"]
    assert gap["verdict"] == "confirmed"
    narrow = 1 - math.acos(math.sqrt(0.75)) / math.pi
    for statistic in ("probe", "probe_unseen"):
        performance = found("feature_performance", "probe_accuracy", statistic, **at)
        assert performance["low"] < narrow < performance["high"]
    gain = found("residuals", "residual_gain", "wide")
    assert gain["low"] < 1 - narrow < gain["high"]
    assert found("residuals", "residual_gain", "wide", "networks")["verdict"] == "confirmed"
    for control in ("narrow_with_noise", "narrow_with_permuted_residuals", "narrow_with_narrow_residuals"):
        alone, beside = (found("residuals", "residual_accuracy", name) for name in ("narrow", control))
        assert beside["value"] - alone["value"] < 0.005, control
    spanned = found("residuals", "residual_accuracy", "wide_with_narrow_residuals")
    assert "40 of 40 features have no residual" in spanned["method"]


def unseen_share(store: Store) -> float:
    """Return the share of the wide networks' features that narrow ones do not see: read off the weights."""
    shares = []
    for key in store.keys("runs"):
        if store.get("runs", key).facts["network"]["width"] == str(Fraction(1)):
            weight = load_network(store, key).state_dict()["mixture.weight"].double().square()
            shares.append(weight[:, -4:].sum(1) / weight.sum(1))
    return float(sum(share.mean() for share in shares) / len(shares))
