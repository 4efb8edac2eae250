import dataclasses
import itertools

import numpy as np
import pytest

import memsim
from memsim import plot
from memsim.plot.prices import _spread
from training.reproduce import list_policies


@pytest.fixture(scope="module")
def policies():
    names = list_policies([0.5, 0.25], [1, 2, 3], [1, 2, 3]) | {
        name: memsim.Policy.parse(name) for name in ("matched:pool=section", "sws+stuck:p=.1,low=5")
    }
    return names


@pytest.fixture(scope="module")
def summaries(policies):
    weights = {"kernel": np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)}
    return memsim.compare(weights, memsim.CrossbarConfig(), policies).policies


def test_chips_leave_as_they_fail(policies):
    years = {
        "unsorted": np.asarray([4.0, 1.0, 2.0, 3.0]),
        "sws": np.asarray([5.0, np.inf]),
        "matched": np.asarray([np.inf, np.inf]),
    }
    figure = plot.chips_at_work({name: policies[name] for name in years}, years, "2 crossbars")
    (axes,) = figure.axes
    lines = dict(zip(years, axes.lines, strict=False))
    for name, at_work in {
        "unsorted": {0.9: 100, 1.1: 75, 2.5: 50, 3.5: 25, 4.5: 0},
        "sws": {4.9: 100, 5.1: 50, 9.0: 50},
        "matched": {0.9: 100, 9.0: 100},
    }.items():
        x, y = lines[name].get_data()
        for when, share in at_work.items():
            assert y[np.searchsorted(x, when, side="right") - 1] == share, (name, when)
    ticks = [label.get_text() for label in axes.get_xticklabels()]
    assert ticks == ["100 days", "1 year", "3 years", "10 years"]
    np.testing.assert_allclose(axes.get_xlim(), (100 / 365.25, 10))
    texts = [text.get_text() for text in figure.legends[0].get_texts()]
    assert texts == ["unsorted (half: 2.5 years)", "sws (half: never)", "matched (half: never)"]


def test_chips_that_never_fail_stay_at_work(policies):
    figure = plot.chips_at_work(policies, {"sws": np.full(3, np.inf)}, "2 crossbars")
    assert figure.axes[0].get_title("left") == "Chips still at work: 2 crossbars each"
    figure.draw_without_rendering()
    np.testing.assert_array_equal(figure.axes[0].lines[0].get_ydata(), 100)


def labels(figure, column):
    """(height, text) of one of the columns at the right: reduction, index bits, errors, policy."""
    texts = [text for text in figure.axes[0].texts if text.get_position()[0] == column]
    return [(text.xy[1], text.get_text()) for text in texts]


def marker(figure, name):
    (line,) = (line for line in figure.axes[0].lines if line.get_label() == name)
    return line


def test_every_policy_is_a_point_at_its_price(policies, summaries):
    figure = plot.reduction_against_index_bits(policies, summaries)
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    figure.draw_without_rendering()
    ticks = [label.get_text() for label in axes.get_yticklabels()]
    assert {"1x", "2x", "5x", "10x"} <= set(ticks)
    for name, summary in summaries.items():
        line = marker(figure, name)
        (bits,), (reduction,) = line.get_data()
        assert bits == summary.index_bits_per_weight
        assert reduction == summary.reduction
        hollow = line.get_markerfacecolor() == "#ffffff"
        assert hollow == (not summary.analog_valid)
        assert axes.viewLim.contains(bits, reduction)
    keys = figure.legends[0]
    assert [text.get_text() for text in keys.get_texts()] == ["analog-valid", "not analog-valid"]
    assert [line.get_markerfacecolor() for line in keys.get_lines()][1] == "#ffffff"


def test_labels_stand_in_order_and_apart(policies, summaries):
    figure = plot.reduction_against_index_bits(policies, summaries)
    figure.draw_without_rendering()
    _, *rows = labels(figure, 232)
    ordered = sorted(policies, key=lambda name: summaries[name].reduction)
    assert [text for _, text in rows] == [str(policies[name]) for name in ordered]
    assert "sws+stuck:p=0.1,low=5" in dict(map(reversed, rows))  # as the policy writes itself
    boxes = [text.get_window_extent() for text in figure.axes[0].texts]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2))
    ranked = [summaries[name] for name in ordered]
    reductions = [f"{summary.reduction:.2f}x" for summary in ranked]
    prices = [summary.index_bits_per_weight for summary in ranked]
    bits = [f"{price:.2f}" if price == 0 or price > 0.005 else "<0.01" for price in prices]
    errors = [
        f"{summary.code_error_rms:.2f} / {summary.code_error_mean:+.2f}".replace("-0.00", "+0.00")
        if summary.code_error_rms
        else ""
        for summary in ranked
    ]
    assert sum(map(bool, errors)) == 6  # three tolerances, corrected and not
    nets = [f"{summary.net_reduction:.2f}x" for summary in ranked]
    for column, expected in ((50, reductions), (102, bits), (156, nets), (222, errors)):
        assert [text for _, text in labels(figure, column)[1:]] == expected
    everything = figure.bbox
    assert all(everything.x0 <= box.x0 and box.x1 <= everything.x1 for box in boxes)


def test_one_line_joins_the_policies_of_one_placement(policies, summaries):
    figure = plot.reduction_against_index_bits(policies, summaries)
    joined = [line for line in figure.axes[0].lines if line.get_linewidth() == 1.2]
    sizes = sorted(len(line.get_xdata()) for line in joined)
    # unsorted, three of the competitors, matched:pool=section alone; sws, sws-layer, matched with
    # and without correction
    assert sizes == [1, 1, 1, 1, 1, 3, 4, 7, 8]
    # but for the 16 bits of a correction per output
    assert all(np.ptp(np.asarray(line.get_xdata(), float)) < 17 / 300 for line in joined)


def test_two_policies_make_a_chart_and_those_without_reduction_none(policies, summaries):
    few = {name: policies[name] for name in ("unsorted", "sws", "matched")}
    some = {name: summaries[name] for name in few}
    some["matched"] = dataclasses.replace(some["matched"], reduction=None)
    figure = plot.reduction_against_index_bits(few, some)
    assert [text for _, text in labels(figure, 166)[1:]] == ["unsorted", "sws"]
    few, some = ({"matched": x["matched"]} for x in (few, some))
    assert len(labels(plot.reduction_against_index_bits(few, some), 112)) == 1


def test_a_price_that_rounds_to_nothing_is_not_called_nothing(policies, summaries):
    some = {"sws": dataclasses.replace(summaries["sws"], index_bits_per_weight=0.001)}
    figure = plot.reduction_against_index_bits({"sws": policies["sws"]}, some)
    assert labels(figure, 102)[1][1] == "<0.01"


@pytest.mark.parametrize(
    ("heights", "expected"),
    [
        ([], []),
        ([0.2, 0.7], [0.2, 0.7]),
        ([0.5, 0.5], [0.45, 0.55]),
        ([0.0, 0.01, 0.9], [0.0, 0.1, 0.9]),
        ([0.97, 0.98, 1.0], [0.8, 0.9, 1.0]),
    ],
)
def test_labels_move_no_further_than_they_must(heights, expected):
    np.testing.assert_allclose(_spread(heights, 0.1), expected)


@pytest.mark.parametrize("rates", [[0.0], [0.01], [0.0, 0.003, 0.1]])
def test_yield_over_stuck_rates_is_a_line_for_each_policy(policies, rates):
    names = ("unsorted", "matched", "matched:tolerance=1")
    yields = {
        name: dict.fromkeys(reversed(rates), (0.9 - i / 10, 0.8 - i / 10, 1 - i / 10))
        for i, name in enumerate(names)
    }
    figure = plot.yield_against_stuck_rate({x: policies[x] for x in names}, yields, 0.982)
    figure.draw_without_rendering()
    (axes,) = figure.axes
    assert axes.get_title(loc="left") == "Chips that keep an accuracy of 98.2 %"
    assert [text.get_text() for text in axes.get_xticklabels()] == [f"{100 * x:g}" for x in rates]
    for i, (container, name) in enumerate(zip(axes.containers, names, strict=True)):
        line, _, (bars,) = container
        assert container.get_label() == name
        np.testing.assert_allclose(np.asarray(line.get_xdata(), float), 100 * np.asarray(rates))
        np.testing.assert_allclose(np.asarray(line.get_ydata(), float), 90 - 10 * i)
        for segment in bars.get_segments():
            np.testing.assert_allclose(segment[:, 1], [80 - 10 * i, 100 - 10 * i])
        at = line.get_transform().transform(line.get_xydata())
        assert axes.bbox.x0 < at[:, 0].min() <= at[:, 0].max() < axes.bbox.x1
    dashes = [container[0].get_linestyle() for container in axes.containers]
    assert dashes == ["-", "-", "--"]  # matched is twice there


def test_bars_of_writes_name_the_price(policies, summaries):
    names = ("unsorted", "sws", "sws-layer")
    figure = plot.writes_by_policy({name: summaries[name] for name in names})
    texts = [text.get_text().strip() for text in figure.axes[0].texts]
    for text, name in zip(texts, names, strict=True):
        bits = f"{summaries[name].index_bits_per_weight:.1f} index bits"
        assert bits in text
        assert ("not analog-valid" in text) == (name == "sws-layer")
    assert texts[0].startswith(f"{summaries['unsorted'].writes:,}  baseline")
    nothing = {"sws": dataclasses.replace(summaries["sws"], writes=0, reduction=None)}
    plot.writes_by_policy(nothing)


def test_wear_of_each_cell_on_one_scale():
    """Colours come from the counts; policies are compared on the scale of the worst cell."""
    rng = np.random.default_rng(0)
    worn = {
        "unsorted": rng.integers(0, 900, (128, 8), np.uint16),
        "sws+stuck:p=0.5,low=3": rng.integers(0, 300, (128, 8), np.uint16),
        "matched": np.zeros((256, 16), np.uint16),
    }
    figure = plot.wear_map(worn)
    *panels, bar = figure.axes
    for axes, (name, cells) in zip(panels, worn.items(), strict=True):
        (image,) = axes.images
        np.testing.assert_array_equal(image.get_array(), cells)
        assert image.get_clim() == (0, worn["unsorted"].max())
        assert axes.get_title("left") == f"{name}\nat most {cells.max():,} writes"
        assert axes.get_xticks()[0] == 0
    assert bar.get_ylabel() == "writes"
    figure.draw_without_rendering()
    titles = [axes._left_title.get_window_extent() for axes in panels]
    assert not any(a.overlaps(b) for a, b in itertools.combinations(titles, 2))
    assert titles[-1].x1 <= figure.bbox.x1
    assert [tick.get_text() for tick in panels[0].get_xticklabels()] == list("01234567")
    assert all(float(row).is_integer() for row in panels[0].get_yticks())


def test_wear_of_few_cells_and_of_none():
    figure = plot.wear_map({"sws": np.zeros((2, 2), np.uint8)})
    figure.draw_without_rendering()
    assert all(float(row).is_integer() for row in figure.axes[0].get_yticks())
    assert figure.axes[0].images[0].get_clim() == (0, 1)


def test_wear_is_of_one_crossbar(params, config, key):
    plan = memsim.plan(params, config, memsim.policies.Sws())
    chip = memsim.sample_chip(key, plan)
    _, programming = memsim.program(params, plan, chip, wear=True)
    plot.wear_map({"sws": programming.wear[0]})
    with pytest.raises(ValueError, match=r"`wear` of sws has shape \(2, 4, 8\).*one crossbar"):
        plot.wear_map({"sws": programming.wear})


def test_an_svg_is_the_same_again_and_says_nothing_of_its_maker(policies, summaries):
    first, second = (
        plot.to_svg(plot.reduction_against_index_bits(policies, summaries)) for _ in range(2)
    )
    assert first == second
    assert first.startswith("<svg")
    assert "<metadata>" not in first


def test_pulses_are_joined_by_policy(policies):
    names = {"sws often": "sws", "matched once": "matched", "matched often": "matched"}
    of = {name: policies[policy] for name, policy in names.items()}
    pulses = {"sws often": 9_000, "matched once": 2_000, "matched often": 1_000}
    change = {name: (-i / 100, -(i + 1) / 100, -(i - 2) / 100) for i, name in enumerate(names)}
    (axes,) = plot.accuracy_against_pulses(of, pulses, change, 0.9).axes
    lines = {container.get_label(): container[0] for container in axes.containers}
    assert set(lines) == {"sws", "matched"}
    # fewest pulses first
    x, y = lines["matched"].get_data()
    np.testing.assert_allclose(np.asarray(x, float), [1_000, 2_000])
    np.testing.assert_allclose(np.asarray(y, float), [88, 89])
    assert axes.get_xscale() == "log"


def test_a_legend_of_long_names_stays_inside_its_chart():
    names = ("unsorted", "sws", "sws-layer", "matched", "aras", "flip-n-write")
    policies = {name: memsim.Policy.parse(name) for name in names}
    weights = {"kernel": np.random.default_rng(0).standard_normal((300, 8)).astype(np.float32)}
    summaries = memsim.compare(weights, memsim.CrossbarConfig(), policies).policies
    change = dict.fromkeys(policies, (0.0, -0.01, 0.01))
    figure = plot.accuracy_against_reduction(policies, summaries, change, 0.9)
    figure.draw_without_rendering()
    (legend,), whole = figure.legends, figure.bbox
    box, (axes,) = legend.get_window_extent(), figure.axes
    assert whole.x0 <= box.x0 < box.x1 <= whole.x1
    assert whole.y0 <= box.y0 < box.y1 <= axes.get_window_extent().y0


def test_points_have_the_labels_that_are_given(summaries):
    names = ["unsorted", "sws"]
    figure = plot.accuracy_against_reduction(
        dict.fromkeys(names, memsim.policies.Sws()),
        {name: summaries[name] for name in names},
        dict.fromkeys(names, (-0.01, -0.02, 0.0)),
        0.9,
        labels={"unsorted": "", "sws": "price 30"},
    )
    assert [text.get_text() for text in figure.axes[0].texts] == ["price 30"]
    assert figure.axes[0].get_xlabel() == "reduction in cell writes"


@pytest.mark.parametrize(("up", "above"), [((0, 1, 2), [True, True]), ((0, -1, 1), [False, True])])
def test_labels_of_points_miss_the_line_that_comes_from_the_left(summaries, up, above):
    names = ("matched", "matched:tolerance=1", "matched:tolerance=2")
    saved = {
        name: dataclasses.replace(summaries["sws"], reduction=2.0 + number)
        for number, name in enumerate(names)
    }
    figure = plot.accuracy_against_reduction(
        {name: memsim.Policy.parse(name) for name in names},
        saved,
        {name: (each / 100,) * 3 for name, each in zip(names, up, strict=True)},
        0.9,
    )
    labels = figure.axes[0].texts
    assert [label.get_text() for label in labels] == ["±1", "±2"]
    assert [label.xyann[1] > 0 for label in labels] == above
    assert all(label.xyann[0] < 0 for label in labels)
