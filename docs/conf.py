"""Sphinx: MyST for the pages, furo for the looks, autodoc and napoleon for the reference."""

from __future__ import annotations

from importlib.metadata import version as version_of

project = "wsev"
author = "wsev contributors"
copyright = "2026, wsev contributors"
release = version_of("wsev")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"wsev {release}"

myst_heading_anchors = 2
napoleon_google_docstring = True
napoleon_numpy_docstring = False
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
