"""The site: the pages of this folder, the docstrings and the notebooks. `make docs` builds it."""

import sys
from pathlib import Path

import flaxgen

sys.path.insert(0, str(Path(__file__).parent))
import hooks

project = "flaxgen"
author = "the authors of flaxgen"
copyright = "the authors of flaxgen, Apache-2.0"
version = release = flaxgen.__version__
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_copybutton"]
# a name that several modules have, such as Config, links to the first; blocks without a language may be drawings
suppress_warnings = ["ref.python", "misc.highlighting_failure"]
highlight_language = "bash"  # blocks that name no language hold commands
smartquotes = False  # they would make one dash of the two before a flag
myst_heading_anchors = 4
nb_execution_mode = "off"

autodoc_default_options = {
    "members": True,
    "undoc-members": True,
    "special-members": "__call__",
    "ignore-module-all": True,
    "member-order": "bysource",
}
autodoc_inherit_docstrings = False
python_maximum_signature_line_length = 88
add_module_names = False
toc_object_entries_show_parents = "hide"

html_theme = "sphinx_book_theme"
html_title = "flaxgen"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_theme_options = {
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "use_download_button": False,
    "navbar_persistent": [],  # the sidebar has the search
}


def setup(app):
    """Sphinx's entry."""
    hooks.connect(app)
