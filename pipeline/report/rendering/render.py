"""Fill in the templates of pages, as HTML or Markdown."""

import base64
import gzip
import re
from functools import cache
from importlib.resources import files

import jinja2

#: Text of a spec or a data set cannot hold these: it is escaped.
_PLOT, _MARK = '<div class="plot"', "<!-- plotly -->"


def html(template: str, **shown: object) -> str:
    """Return a page that contains its scripts and styles; plotly.js is added if the page has figures.

    Names come from specs and data sets, so everything else is escaped. A page inflates plotly.js when its first figure
    is scrolled to.
    """
    page = fragment(template, **shown)
    packed = base64.b64encode(_packed_plotly()).decode() if _PLOT in page else ""
    return page.replace(_MARK, packed and f'<script type="application/gzip" id="plotly">{packed}</script>')


def fragment(template: str, **shown: object) -> str:
    """Return a page without plotly.js, or a part of a page."""
    return _environment(autoescape=True).get_template(template).render(**shown)


def plotly_js() -> bytes:
    """Return plotly.js as this package ships it: the smaller build of cartesian figures."""
    return gzip.decompress(_packed_plotly())


def _packed_plotly() -> bytes:
    """Return the file of the npm package plotly.js-cartesian-dist-min, compressed; plotly of Python makes its input."""
    return files("pipeline.report.rendering").joinpath("vendor/plotly-cartesian.min.js.gz").read_bytes()


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
