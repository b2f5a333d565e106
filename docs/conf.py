"""How the pages are built: MyST Markdown, the docstrings of the public names, furo."""

from importlib import metadata

project = "Widthwise"
author = "The Widthwise developers"
version = release = metadata.version("widthwise")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "log"]

# `widthwise` loads its names when asked, so autodoc finds each by asking. Shapes such as "rows features"
# are left as written in the signatures.
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"
python_maximum_signature_line_length = 80

html_theme = "furo"
html_title = "Widthwise"
