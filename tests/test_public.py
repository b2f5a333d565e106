"""The names a user may rely on, and that asking for none of them costs nothing."""

import subprocess
import sys

import pytest

import widthwise

ERRORS = {"DataError", "NumericsWarning", "StorageError", "UsageError", "WidthwiseError"}
TOOLS = {
    "concatenate",
    "count_matching",
    "growth_curve",
    "load_study",
    "plan",
    "probe_accuracy",
    "run",
    "span_error",
    "span_gap",
}


def test_the_public_names_are_these_and_sorted():
    assert widthwise.__all__ == sorted(ERRORS | TOOLS | {"Moments", "SpanRegressor", "Store"})


@pytest.mark.parametrize("name", [*widthwise.__all__, "__version__"])
def test_every_public_name_is_there(name):
    assert getattr(widthwise, name)
    assert name in dir(widthwise)


def test_a_star_brings_every_public_name():
    names = {}
    exec("from widthwise import *", names)
    assert set(widthwise.__all__) <= names.keys()


def test_a_name_that_is_not_there_is_refused_as_any_module_would():
    with pytest.raises(AttributeError, match="no attribute 'span_eror'"):
        widthwise.span_eror  # noqa: B018


def test_importing_the_package_loads_neither_torch_nor_numpy():
    code = "import sys, widthwise; assert not {'torch', 'numpy'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)
