"""Fill in the templates of pages, as HTML or Markdown."""

import re
from functools import cache
from importlib.resources import files

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs


def html(template: str, **shown: object) -> str:
    """Return a page that contains its scripts and styles.

    Names come from specs and data sets, so everything is escaped except plotly.js.
    """
    return fragment(template, plotly_js=Markup(get_plotlyjs()), **shown)


def fragment(template: str, **shown: object) -> str:
    """Return a page without plotly.js, or a part of a page."""
    return _environment(autoescape=True).get_template(template).render(**shown)


def markdown(template: str, **shown: object) -> str:
    """Return Markdown; templates escape with the filter `md`, since HTML's escaping keeps | and `."""
    environment = _environment(autoescape=False)
    environment.filters["md"] = escape_markdown
    return environment.get_template(template).render(**shown)


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows literally, in tables too."""
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"([\\`*_|])", r"\\\1", " ".join(text.split()))
    return re.sub(r"\](?=[(\[:])", r"\\]", text)  # only these make a link: an interval keeps its plain brackets


@cache
def _environment(autoescape: bool) -> jinja2.Environment:
    folder = files("pipeline.report.rendering").joinpath("templates")
    loader = jinja2.FunctionLoader(lambda name: folder.joinpath(name).read_text(encoding="utf-8"))
    return jinja2.Environment(
        loader=loader, autoescape=autoescape, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
