"""How the pages are built: MyST Markdown, the docstrings of the public names, furo."""

from importlib.metadata import version

project = "Widthwise"
author = "The Widthwise developers"
release = version("widthwise")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.doctest", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "log"]

# `widthwise` loads its names when asked, so autodoc finds each by asking. Shape strings such as "rows features"
# are left as written in the signatures.
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80
doctest_test_doctest_blocks = ""  # the default tests every docstring; ours run under pytest

html_theme = "furo"
html_title = "Widthwise"
