"""The report as a page that stands by itself."""

import math
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

import jinja2
import markupsafe

from memsim.report.texts import (
    index_bits_text,
    lifetime_title,
    number_text,
    origin_text,
    passes_text,
    quantity_text,
    time_text,
)


def to_html(
    report: Mapping[str, Any],
    accuracy: Mapping[str, float] | None = None,
    pictures: Mapping[str, str] | None = None,
) -> str:
    """A self-contained page: no script, no font, no picture from elsewhere.

    Args:
      report: what `to_json` gives; `accuracy` of the policies, if there, gets a column.
      accuracy: shares of 1 by what they are of, shown first.
      pictures: SVG by title; trusted.
    """
    source = (
        resources.files("memsim.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    )
    # names come from strangers' checkpoints: escaped
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters["index_bits"] = index_bits_text
    environment.filters["quantity"] = quantity_text
    environment.filters["passes"] = passes_text
    environment.filters["breakable"] = lambda name: markupsafe.Markup("<wbr>").join(
        re.split(r"(?<=[:,+])", name)
    )
    environment.filters["number"] = lambda value: number_text(math.inf if value is None else value)
    environment.filters["time"] = lambda years: time_text(math.inf if years is None else years)
    environment.globals |= {"lifetime_title": lifetime_title, "origin": origin_text}
    template = environment.from_string(source)
    return template.render(report=report, accuracy=accuracy or {}, pictures=pictures or {})
