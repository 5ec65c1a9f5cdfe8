"""Sphinx configuration: built by ``nox -s docs``, offline, with warnings as errors."""

from importlib.metadata import version as installed_version

project = "vrrpkit"
author = "vrrpkit contributors"
copyright = "2026, vrrpkit contributors"
release = version = installed_version("vrrpkit")

extensions = ["myst_parser", "sphinx.ext.autodoc"]
exclude_patterns = ["_build"]
html_theme = "furo"
html_title = f"vrrpkit {version}"

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

# The pytest plugin is documented without pytest.
autodoc_mock_imports = ["pytest"]
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
