"""All charts alike: one colour for each policy, alt texts, files that say how they were made."""

import ast
import itertools
import json
import re
import xml.etree.ElementTree

import matplotlib.colors
import numpy as np
import PIL.Image
import pytest

import memsim
from memsim import plot
from memsim.service.costs import Figure as Priced
from memsim.summary import Summary

NAMES = ("unsorted", "sws", "sws-layer", "matched", "flip-n-write", "aras", "lab:Mine")
MADE_BY = {
    "version": "0.2.0", "jax": "0.5", "command": "memsim report 'ä (1).npz' --rows 8", "seed": 3,
    "options": {"--rows": 8}, "rates": {"stuck_at_0": 0.0, "stuck_at_1": 0.0, "writing": None},
    "hardware": "published", "files": {}, "date": "1970-01-02T00:00:00+00:00",
}  # fmt: skip


class Mine(memsim.policies.Policy):
    """A policy from outside the library."""

    name = "lab:Mine"

    def place(self, codes, config):
        raise NotImplementedError

    def index_bits(self, inputs, outputs, config):
        return 0.0


POLICIES = {name: Mine() if ":" in name else memsim.Policy.parse(name) for name in NAMES}


def summary(number):
    counts = dict.fromkeys(
        ("sets", "resets", "row_operations", "set_rows", "reset_rows", "pulses", "set_pulses",
         "reset_pulses"), 50,
    )  # fmt: skip
    return Summary(
        writes=1000 // (number + 1), writes_per_pass=[1000], wrong_cells=None, wrong_share=None,
        reduction=1.0 + number, net_reduction=1.0 + number / 2, index_bits_per_weight=float(number),
        analog_valid=number != 2, max_cell_writes=7, layers={}, **counts,
        writes_per_column=[300 - 10 * number - i for i in range(8)],
    )  # fmt: skip


SUMMARIES = {name: summary(number) for number, name in enumerate(NAMES)}
CHANGE = {name: (-n / 1000, -n / 1000 - 0.002, -n / 1000 + 0.002) for n, name in enumerate(NAMES)}


def ways():
    figures = ("arrays", "joules", "seconds", "cost_per_million")
    units = ("", "J", "s", "$/10^6 inferences")
    of_way = {name: Priced(2.0, unit, "", {}) for name, unit in zip(figures, units, strict=True)}
    return {f"streamed: {name}": of_way for name in NAMES} | {"held": of_way}


@pytest.fixture(scope="module")
def charts():
    """Every chart, by the name of its function."""
    names, policies, summaries = NAMES, POLICIES, SUMMARIES
    yields = {name: {0.0: (1.0, 0.9, 1.0), 0.01: (0.5, 0.4, 0.6)} for name in names}
    years = {name: np.arange(1.0, 9) for name in names}
    pulses = {name: 1000 + number for number, name in enumerate(names)}
    return {
        "writes_by_policy": plot.writes_by_policy(summaries),
        "writes_per_column": plot.writes_per_column(summaries),
        "reduction_against_index_bits": plot.reduction_against_index_bits(policies, summaries),
        "accuracy_against_reduction": plot.accuracy_against_reduction(
            policies, summaries, CHANGE, 0.9
        ),
        "accuracy_against_pulses": plot.accuracy_against_pulses(policies, pulses, CHANGE, 0.9),
        "accuracy_over_chips": plot.accuracy_over_chips(0.9, {n: [0.8, 0.85] for n in names}),
        "yield_against_stuck_rate": plot.yield_against_stuck_rate(policies, yields, 0.8),
        "chips_at_work": plot.chips_at_work(policies, years, "one crossbar"),
        "wear_map": plot.wear_map({n: np.full((4, 8), 3) for n in names}),
        "ways_to_run": plot.ways_to_run(ways()),
        "arrays_at_work": plot.arrays_at_work(
            memsim.hardware.make_timeline(
                [memsim.hardware.Stage("fc", sections=6, move=0.1, write=2.0, product=0.5)],
                memsim.CrossbarConfig(crossbars=3),
            )
        ),
    }


def rows(axes, containers):
    return [matplotlib.colors.to_hex(bar.get_facecolor()) for bar in containers[0]]


def colours(function, figure):
    """The colour of each policy in a chart, read off what is drawn."""
    axes = figure.axes[0]
    if function in ("writes_by_policy", "ways_to_run"):
        return dict(zip(NAMES, rows(axes, axes.containers), strict=False))
    if function == "accuracy_over_chips":
        dots = [matplotlib.colors.to_hex(each.get_facecolor()[0]) for each in axes.collections]
        return {n: x for n, x in zip(NAMES, dots, strict=True) if ":" not in n}
    lines = {each.get_label(): each[0] for each in axes.containers} or {
        line.get_label().partition(" (")[0]: line for line in axes.lines
    }
    lines = {name.partition(" (")[0]: line for name, line in lines.items()}
    return {name: matplotlib.colors.to_hex(lines[name].get_color()) for name in NAMES}


def test_a_policy_has_one_colour_in_every_chart_and_no_other_has_it(charts):
    found = {
        function: colours(function, figure)
        for function, figure in charts.items()
        if function not in ("wear_map", "arrays_at_work")  # scales, and phases
    }
    of = found["writes_by_policy"]
    assert len(set(of.values())) == len(NAMES)
    for function, each in found.items():
        assert len(each) >= len(NAMES) - 1
        assert {name: of[name] for name in each} == each, function


def test_the_colour_goes_by_the_policy_and_not_by_the_chart(charts):
    alone = plot.writes_by_policy({"matched:tolerance=2": SUMMARIES["sws"]}).axes[0]
    (bar,) = alone.patches
    beside = colours("writes_by_policy", charts["writes_by_policy"])
    assert matplotlib.colors.to_hex(bar.get_facecolor()) == beside["matched"]


def seen(colour, loss):
    """Lab of a colour as it is seen, by the matrices of Machado, Oliveira and Fernandes (2009)."""
    matrix = {
        "none": np.eye(3),
        "protan": [[0.1523, 1.0526, -0.2049], [0.1145, 0.7863, 0.0992], [-0.0039, -0.0481, 1.0520]],
        "deutan": [[0.3673, 0.8606, -0.2280], [0.2801, 0.6725, 0.0474], [-0.0118, 0.0429, 0.9689]],
    }[loss]
    part = np.asarray(matplotlib.colors.to_rgb(colour))
    linear = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    to_xyz = [[0.4125, 0.3576, 0.1804], [0.2127, 0.7152, 0.0722], [0.0193, 0.1192, 0.9503]]
    xyz = np.asarray(to_xyz) @ np.clip(np.asarray(matrix) @ linear, 0, 1) / [0.9505, 1, 1.0888]
    x, y, z = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    return np.asarray([116 * y - 16, 500 * (x - y), 200 * (y - z)])


@pytest.mark.parametrize("loss", ["none", "protan", "deutan"])
def test_colours_are_told_apart_by_the_colour_blind(charts, loss):
    of = colours("writes_by_policy", charts["writes_by_policy"]).values()
    apart = [
        np.linalg.norm(seen(a, loss) - seen(b, loss)) for a, b in itertools.combinations(of, 2)
    ]
    assert min(apart) > 15  # 2.3 is what can just be noticed


def test_lines_that_fall_together_differ_in_more_than_colour(charts):
    lines = [line for line in charts["chips_at_work"].axes[0].lines if line.get_marker() != "None"]
    assert len(lines) == len(NAMES)
    assert len({line.get_marker() for line in lines}) == len(NAMES)
    assert len({line.get_markevery() for line in lines}) == len(NAMES)  # at other places


def test_many_variants_of_one_policy_differ_in_dashes_or_markers():
    texts = [f"sws+stuck:p=0.5,low={low}" for low in range(1, 8)]
    policies = {text: memsim.Policy.parse(text) for text in texts}
    yields = {text: {0.0: (1.0, 1.0, 1.0), 0.01: (0.5, 0.5, 0.5)} for text in texts}
    figure = plot.yield_against_stuck_rate(policies, yields, 0.9)
    lines = [container[0] for container in figure.axes[0].containers]
    assert len({line.get_color() for line in lines}) == 1
    looks = {(line.get_linestyle(), line.get_markerfacecolor()) for line in lines}
    assert len(looks) == len(texts)


def test_every_chart_is_tested_here(charts):
    functions = set(plot.__all__) - {"save_chart", "to_svg"}
    assert functions == set(charts)


@pytest.mark.parametrize("function", sorted(set(plot.__all__) - {"save_chart", "to_svg"}))
def test_every_chart_has_an_alt_text_with_its_figures(charts, function):
    text = charts[function].get_label()
    assert text.endswith(".")
    assert len(text.split()) > 12
    assert len(re.findall(r"\d", text)) >= 4
    if function != "arrays_at_work":
        for name in NAMES:
            assert name in text
    assert "nan" not in text


def test_alt_texts_tell_the_figures():
    text = plot.writes_by_policy(SUMMARIES).get_label()
    assert "matched 250, 4.00x fewer, 2.50x less energy, 3.0 index bits" in text
    text = plot.wear_map({"sws": np.asarray([[1, 2], [3, 4]])}).get_label()
    assert text == "Maps of the writes of each cell of a crossbar: sws at most 4 writes, mean 2.5."
    many = {f"sws+stuck:p=0.5,low={low}": SUMMARIES["sws"] for low in range(1, 31)}
    text = plot.writes_by_policy(many).get_label()
    assert "18 others between" in text
    assert "low=30 " in text


def test_labels_of_bars_stay_inside_their_chart():
    wide = {name + " in differential": each for name, each in SUMMARIES.items()}
    for summaries in (SUMMARIES, wide, {"sws": SUMMARIES["sws"]}):
        figure = plot.writes_by_policy(summaries)
        figure.draw_without_rendering()
        for text in (*figure.axes[0].texts, *figure.axes[0].get_yticklabels()):
            box = text.get_window_extent()
            assert figure.bbox.x0 <= box.x0 < box.x1 <= figure.bbox.x1, text


@pytest.mark.parametrize("kind", ["png", "svg", "pdf", "SVG"])
def test_a_file_says_how_its_chart_was_made(charts, tmp_path, kind):
    figure, path = charts["writes_by_policy"], tmp_path / f"chart.{kind}"
    plot.save_chart(path, figure, MADE_BY)
    if kind == "png":
        with PIL.Image.open(path) as image:
            found = dict(image.text)
        alt, made_by = found["Comment"], found["made_by"]
        assert found["Creation Time"] == MADE_BY["date"]
    elif kind == "pdf":
        found = pdf_texts(path.read_bytes())
        alt, made_by = found["Title"], found["Keywords"]
        assert found["CreationDate"].startswith("D:19700102000000")
        found["Software"], found["Description"] = found["Creator"], found["Subject"]
    else:
        root = xml.etree.ElementTree.parse(path).getroot()  # noqa: S314
        found = {}
        for each in root.iter():
            texts = [text.strip() for text in each.itertext() if text.strip()]
            found.setdefault(each.tag.partition("}")[2], " ".join(texts))
        alt, made_by = root.get("aria-label"), found["source"]
        assert found["date"] == MADE_BY["date"]
        found["Software"], found["Description"] = found["creator"], found["description"]
    assert alt == figure.get_label()
    assert json.loads(made_by) == MADE_BY
    assert found["Software"] == "memsim 0.2.0"
    assert found["Description"] == MADE_BY["command"]


def pdf_texts(data):
    """The information dictionary of a PDF: plain strings, or UTF-16 behind a mark."""
    found = {}
    for name, text in re.findall(rb"/(\w+) \(((?:[^()\\]|\\.)*)\)", data, re.DOTALL):
        text = re.sub(
            rb"\\([0-7]{3}|.)",
            lambda m: bytes([int(m[1], 8)]) if m[1].isdigit() else ast.literal_eval(
                f"b'\\{m[1].decode()}'") if m[1] in (b"n", b"r", b"t") else m[1],
            text, flags=re.DOTALL,
        )  # fmt: skip
        marked = text.startswith(b"\xfe\xff")
        found[name.decode()] = text.decode("utf-16" if marked else "latin-1")
    return found


@pytest.mark.parametrize("kind", ["png", "svg", "pdf"])
def test_files_are_the_same_again(charts, tmp_path, kind):
    files = [tmp_path / f"{number}.{kind}" for number in range(2)]
    for path in files:
        plot.save_chart(path, charts["chips_at_work"], MADE_BY)
    assert files[0].read_bytes() == files[1].read_bytes()
    with pytest.raises(FileExistsError, match="use --force"):
        plot.save_chart(files[0], charts["chips_at_work"], MADE_BY)


@pytest.mark.parametrize("name", ["chart.jpg", "chart", "chart.svg.gz", "png"])
def test_another_ending_is_an_error_that_names_the_kinds(charts, tmp_path, name):
    with pytest.raises(ValueError, match=r"^`path` is .*; charts are .png, .svg or .pdf") as error:
        plot.save_chart(tmp_path / name, charts["chips_at_work"])
    assert "\n" not in str(error.value)
    assert not [*tmp_path.iterdir()]


def test_any_figure_can_be_saved_without_a_report(tmp_path):
    figure = matplotlib.figure.Figure()
    plot.save_chart(tmp_path / "a.png", figure)
    plot.save_chart(tmp_path / "a.svg", figure)
    assert 'aria-label=""' in (tmp_path / "a.svg").read_text()
    with pytest.raises(ValueError, match="`figure` is a str"):
        plot.save_chart(tmp_path / "b.png", "figure")
