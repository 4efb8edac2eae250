"""Makes the report a page that stands by itself."""

import math
import re
from collections.abc import Mapping
from importlib import resources
from typing import Any

from memsim.report._colours import THEME, style_of
from memsim.report._columns import NEGATIVE, PICTURE, column_bars, columns_text
from memsim.report._made_by import made_by_lines
from memsim.report.texts import (
    CODE_ERRORS,
    code_error_text,
    count_text,
    encodings_text,
    index_bits_text,
    lifetime_title,
    net_text,
    number_text,
    origin_text,
    passes_text,
    pool_text,
    printable,
    quantity_text,
    time_text,
    wear_text,
    width_text,
    writing_text,
)

__all__ = ["to_html"]


def to_html(
    report: Mapping[str, Any],
    accuracy: Mapping[str, float] | None = None,
    pictures: Mapping[str, str] | None = None,
    perplexity: Mapping[str, float] | None = None,
) -> str:
    """Makes a self-contained page: no script, no font, no picture from elsewhere.

    It is dark where the reader's system is, and prints on A4.

    Example:
      >>> page = to_html(to_json("model.npz", config, summaries, digital=[]))  # doctest: +SKIP

    Args:
      report: what `to_json` gives; `accuracy` or `perplexity` of the policies, if there, gets a
        column, and `made_by` of a command a footer.
      accuracy: shares of 1 by what they are of, shown first.
      pictures: SVG by title; trusted.
      perplexity: of a language model in place of `accuracy`, by what it is of.
    """
    import jinja2
    import markupsafe

    def visible(value: object) -> object:
        # what is markup is ours; all other text may hold names from strangers' checkpoints
        if isinstance(value, str) and not isinstance(value, markupsafe.Markup):
            return printable(value)
        return value

    def breakable(name: str) -> markupsafe.Markup:
        return markupsafe.Markup("<wbr>").join(re.split(r"(?<=[:,+])", printable(name)))

    source = (
        resources.files("memsim.report").joinpath("page.html.jinja").read_text(encoding="utf-8")
    )
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, finalize=visible
    )
    environment.filters |= {
        "breakable": breakable,
        "counted": count_text,
        "index_bits": index_bits_text,
        "number": lambda value: number_text(math.inf if value is None else value),
        "passes": passes_text,
        "quantity": quantity_text,
        "time": lambda years: time_text(math.inf if years is None else years),
    }
    environment.globals |= {
        "CODE_ERRORS": CODE_ERRORS,
        "NEGATIVE": NEGATIVE,
        "PICTURE": PICTURE,
        "THEME": THEME,
        "column_bars": column_bars,
        "columns_text": columns_text,
        "colour_of": lambda name: style_of(name)[0],
        "code_error": code_error_text,
        "encodings_text": encodings_text,
        "lifetime_title": lifetime_title,
        "made_by_lines": made_by_lines,
        "net_text": net_text,
        "origin": origin_text,
        "pool": pool_text,
        "wear_text": wear_text,
        "width_text": width_text,
        "writing_text": writing_text,
    }
    template = environment.from_string(source)
    return template.render(
        report=report, accuracy=accuracy or {}, pictures=pictures or {}, perplexity=perplexity or {}
    )
