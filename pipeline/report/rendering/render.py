"""How a page is written: templates filled in as HTML or Markdown, each file by way of a temporary one."""

import re
from functools import cache
from importlib.resources import files

import jinja2
from markupsafe import Markup
from plotly.offline import get_plotlyjs


def html(template: str, **shown: object) -> str:
    """A page with its scripts and styles in it.

    Names come from specs and data sets: everything is escaped but plotly.js, which is a library's file.
    """
    return fragment(template, plotly_js=Markup(get_plotlyjs()), **shown)


def fragment(template: str, **shown: object) -> str:
    """A page that finds its scripts elsewhere, or a part of one."""
    return _environment(autoescape=True).get_template(template).render(**shown)


def markdown(template: str, **shown: object) -> str:
    """Markdown; it has an escape of its own, the filter `md`, since HTML's leaves | and ` as they are."""
    environment = _environment(autoescape=False)
    environment.filters["md"] = escape_markdown
    return environment.get_template(template).render(**shown)


def escape_markdown(text: str) -> str:
    """Text that reads as itself in Markdown, also within a table."""
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
