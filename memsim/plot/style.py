"""What all charts look like."""

import io
from collections.abc import Mapping

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullLocator

from memsim.policies import Policy

INK, SOFT, BAR, GOOD, BAD = "#1c2430", "#5d6b7d", "#3b6fb6", "#2f8f5b", "#b4552d"
_STYLES = {
    "unsorted": (SOFT, "s"), "sws": (BAR, "o"), "sws-layer": (BAD, "D"), "matched": (GOOD, "^"),
}  # fmt: skip
_OTHER_STYLES = (("#7a4fa3", "v"), ("#1f8a96", "P"), ("#9a7317", "X"), ("#b03a72", "<"))


def new_figure(width: float, height: float) -> Figure:
    """An empty figure, in inches."""
    return Figure(figsize=(width, height), dpi=150, layout="constrained")


def tidy(axes, title: str) -> None:  # type: ignore[no-untyped-def]  # matplotlib is untyped here
    """A title and quiet axes."""
    axes.set_title(title, loc="left", fontsize=11, color=INK, fontweight="bold")
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b8c1cc")
    axes.tick_params(colors=SOFT, labelsize=9)
    axes.xaxis.label.set_color(SOFT)
    axes.yaxis.label.set_color(SOFT)


def styles_of(policies: Mapping[str, Policy]) -> dict[str, tuple[str, str]]:
    """Colour and marker of each name: those of its placement."""
    heads = {name: str(policy.placing).partition(":")[0] for name, policy in policies.items()}
    others = [head for head in dict.fromkeys(heads.values()) if head not in _STYLES]
    styles = _STYLES | dict(zip(others, _OTHER_STYLES * len(others), strict=False))
    return {name: styles[head] for name, head in heads.items()}


def reductions_on(axis) -> None:  # type: ignore[no-untyped-def]
    """Ticks 1x, 2x, 5x, 10x on a log axis."""
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(lambda value, _: f"{value:g}x")


def to_svg(figure: Figure) -> str:
    """The figure as an SVG element, for `to_html`; the same figure gives the same text."""
    import matplotlib

    buffer = io.StringIO()
    nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with matplotlib.rc_context({"svg.hashsalt": "memsim"}):
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
