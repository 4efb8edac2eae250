"""The page of a report: valid, self-contained, legible on paper, in the dark and without eyes."""

import html.parser
import json
import re

import numpy as np
import pytest

import memsim
from memsim import plot
from memsim.report import to_html, to_json

NAMES = ("unsorted", "sws", "sws-layer", "matched", "flip-n-write")
VOID = {"meta", "br", "wbr", "use", "path", "rect", "line"}


class Page(html.parser.HTMLParser):
    """A page that is read: its tags, with attributes; tags that are not closed; its styles."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.wrong, self.style = [], [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        if tag in VOID:
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)

    def handle_data(self, data):
        if self.open and self.open[-1] == "style":
            self.style += data

    def of(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


def compared(encoding):
    weights = {"fc.weight": np.random.default_rng(0).standard_normal((8, 60)).astype(np.float32)}
    config = memsim.CrossbarConfig(rows=16, encoding=encoding)
    policies = {name: memsim.Policy.parse(name) for name in NAMES}
    return policies, memsim.compare(weights, config, policies).policies, config


@pytest.fixture(scope="module")
def differential():
    return compared("differential")


@pytest.fixture(scope="module")
def document(differential):
    _, summaries, config = differential
    return to_json("net.npz", config, summaries, ["fc.bias"])


@pytest.fixture(scope="module")
def page(differential, document):
    policies, summaries, _ = differential
    years = {name: np.array([0.5, 1.0, 2.0]) for name in NAMES}
    charts = {
        "Prices": plot.reduction_against_index_bits(policies, summaries),
        "Lives": plot.chips_at_work(policies, years, "1 crossbar"),
    }
    return to_html(document, pictures={title: plot.to_svg(x) for title, x in charts.items()})


def test_tags_are_closed_and_names_are_given_once(page):
    read = Page(page)
    assert read.wrong == []
    assert read.open == []
    names = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(names) > 20
    assert len(names) == len(set(names))
    # and every reference has its target
    targets = re.findall(r'(?:href="|url\()#([^")]+)', page)
    assert set(targets) <= set(names)


def test_nothing_comes_from_elsewhere(page):
    read = Page(page)
    assert not {"script", "link", "img", "iframe", "object"} & {tag for tag, _ in read.tags}
    for _, attributes in read.tags:
        for name in ("src", "href", "xlink:href"):
            assert attributes.get(name, "#").startswith("#")
    assert "@import" not in page
    assert not re.search(r"url\((?!#)", page)


def test_every_picture_says_what_it_shows(page, document):
    pictures = Page(page).of("svg")
    assert len(pictures) == 2 + len(NAMES)
    for picture in pictures:
        assert picture["role"] == "img"
        assert len(picture["aria-label"]) > 40
    for name, picture in zip(NAMES, pictures[2:], strict=True):
        text = picture["aria-label"]
        assert f"under {name}:" in text
        for writes in document["policies"][name]["writes_per_column"]:
            assert f"{writes:,}" in text


@pytest.mark.parametrize(("encoding", "hollow"), [("differential", 7), ("twos_complement", 0)])
def test_halves_of_differential_words_are_told_apart(encoding, hollow, differential):
    _, summaries, config = differential if hollow else compared(encoding)
    page = to_html(to_json("net.npz", config, summaries, []))
    picture = page[page.index('aria-label="Writes of each column under sws:') :].partition(
        "</svg>"
    )[0]
    bars = [attributes for tag, attributes in Page(picture).tags if tag == "rect"]
    assert sum(bar["fill"] == "none" for bar in bars) == hollow
    assert ("negative half" in picture) == ("positive half" in picture) == bool(hollow)
    steps = np.diff(sorted(float(bar["x"]) for bar in bars))
    assert (steps > 1.5 * steps.min()).sum() == (1 if hollow else 0)  # a gap between them


def test_flags_are_no_part_of_a_half(differential):
    _, summaries, config = differential
    figure = plot.writes_per_column({"flip-n-write": summaries["flip-n-write"]}, config)
    ticks = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert ticks == [*"0123456", *"0123456", "flag"]
    said = {text.get_text() for text in figure.axes[0].texts}
    assert said == {"positive half", "negative half", "flag"}
    # a line does not run on from one half into the other
    lengths = [len(line.get_xdata()) for line in figure.axes[0].lines]
    assert [length for length in lengths if length > 2] == [7, 7]


def variables(style, start):
    block = style[style.index(start) :]
    return dict(re.findall(r"--([a-z]+): (#[0-9a-f]{6})", block[: block.index("}")]))


def contrast(one, other):
    """The ratio of WCAG 2."""

    def luminance(colour):
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [x / 12.92 if x <= 0.04045 else ((x + 0.055) / 1.055) ** 2.4 for x in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_it_is_legible_in_the_light_and_in_the_dark(page):
    style = Page(page).style
    light = variables(style, ":root")
    dark = light | variables(style, "@media screen and (prefers-color-scheme: dark)")
    assert set(re.findall(r"var\(--([a-z]+)", page)) <= set(light)
    assert contrast(dark["paper"], "#000000") < 1.5 < 15 < contrast(light["paper"], "#000000")
    bars = set(re.findall(r"width: [\d.]+%; background: (#[0-9a-f]{6})", page))
    assert len(bars) == len(NAMES)
    for scheme in (light, dark):
        for text in ("ink", "soft", "bad"):
            assert contrast(scheme[text], scheme["paper"]) >= 4.5
        for colour in bars:
            assert contrast(colour, scheme["paper"]) >= 3
    # no colour of text or paper is fixed in a chart
    for fixed in (light["ink"], light["soft"], light["paper"]):
        assert not re.search(
            rf"(?<!, ){fixed}", page.partition("</style>")[2].replace(f": {fixed}; }}", "")
        )


def test_it_prints_on_a4(page):
    style = Page(page).style
    assert "@page { size: A4;" in style
    printed = style[style.index("@media print") :]
    assert "overflow: visible" in printed  # no part of a section needs scrolling
    assert "::details-content" in printed  # what is folded is there


def test_wide_tables_go_on_below(document):
    """Twenty policies: no table has a column for each of them."""
    many = json.loads(json.dumps(document))
    names = [f"sws+stuck:p=0.5,low={low}" for low in range(1, 21)]
    many["policies"] = dict.fromkeys(names, many["policies"]["sws"])
    text = to_html(many).partition("Where the writes go: layers")[2]
    heads = re.findall(r"<thead>(.*?)</thead>", text, re.DOTALL)
    assert [len(re.findall("<code>", head)) for head in heads] == [5, 5, 5, 5]
    assert re.sub("<wbr>", "", "".join(heads)).count("sws+stuck:p=0.5,low=") == 20


def test_a_sweep_of_rates_and_writings_is_written_down(document):
    made_by = {
        "version": "0.2.0", "jax": "0.5", "command": "python -m training.sweep", "options": {},
        "seed": 0, "hardware": "published", "files": {}, "date": "1970-01-02T00:00:00+00:00",
        "rates": {"stuck_at_0": [0.0, 0.01], "stuck_at_1": [0.0, 0.01], "writing": ["a", "b"]},
    }  # fmt: skip
    footer = to_html(document | {"made_by": made_by}).partition("<footer>")[2]
    assert "none drawn; 1 % at 0 and 1 % at 1" in footer
    assert "a; b" in footer
