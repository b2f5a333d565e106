"""Whoever asks for help does not wait for torch."""

import subprocess
import sys

import pytest

# Printed at exit, because `--help` ends in SystemExit.
CODE = """
import atexit, sys
heavy = {{"torch", "numpy", "scipy", "sklearn", "altair"}}
atexit.register(lambda: print("loaded:", *sorted(heavy & sys.modules.keys())))
import widthwise.cli
sys.argv = ["widthwise", "--help"]
{call}
"""


@pytest.mark.parametrize("call", ["", "widthwise.cli.main()"], ids=["import", "help"])
def test_the_command_line_loads_nothing_heavy_before_it_has_work(call):
    done = subprocess.run([sys.executable, "-c", CODE.format(call=call)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].strip() == "loaded:"
