"""Rank intervals and the heat map of speed-ups: what is drawn where."""

import dataclasses
import itertools

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import Rectangle

from scoring.output import plot_style as style
from scoring.output.palette import COLOURS
from scoring.output.plot_submissions import ink, number, percent, plot_ranks, plot_speedups


@pytest.fixture(autouse=True)
def settings():
    with style.context():
        yield


@pytest.fixture
def competition(reach, miss):
    """Three submissions on digits and lm, two studies, budgets 100.

    Median times: digits a 12, b 24, c missed in one of two studies, hence inf; lm a missed in one,
    b 40, c 50. Best first: b, a, c.
    """
    for workload, times in {
        "digits": {"a": (10, 14), "b": (24, 24), "c": (12, None)},
        "lm": {"a": (60, None), "b": (30, 50), "c": (40, 60)},
    }.items():
        for submission, of in times.items():
            for study, time_s in enumerate(of):
                facts = {"submission": submission, "study": study, "workload": workload}
                miss(**facts) if time_s is None else reach(time_s, **facts)


def drawn(axes):
    """The texts of axes by place: (x, y) rounded down -> text."""
    return {
        (int(x), int(y)): text.get_text()
        for text in axes.texts
        for x, y in [text.get_position()]
        if text.get_text()
    }


def small_print(figure):
    return figure._supxlabel.get_text()


# Ranks


def test_ranks(competition, analysis):
    made = analysis()
    studies = dataclasses.replace(
        made.studies,
        # Places of b, a, c in four competitions: 1 2 3; 1 2 3; 2 1 3; 1 1 3 (a tie, which
        # counts half for each): b is first with 2.5 of 4, a with 1.5.
        scores_RS=np.array([[0.9, 0.5, 0.1], [0.9, 0.5, 0.1], [0.4, 0.5, 0.1], [0.5, 0.5, 0.1]]),
    )
    figure = plot_ranks(dataclasses.replace(made, studies=studies))
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a", "c"]
    assert axes.get_ylim() == (2.5, -0.5)  # the best at the top
    assert [line.get_xydata().tolist() for line in axes.lines] == [[[1, 0]], [[2, 1]], [[3, 2]]]
    bars = [bar.get_segments()[0].tolist() for bar in axes.collections]
    assert np.array(bars) == pytest.approx(
        np.array([[[0.8, 0], [2.2, 0]], [[0.8, 1], [2.2, 1]], [[2.8, 2], [3.2, 2]]])
    )
    assert [to_hex(bar.get_color()[0]).upper() for bar in axes.collections] == list(COLOURS[:3])
    told = [text.get_text() for text in axes.texts]
    assert told == ["62 %", "38 %", "0 %", "probability of\nbeing first"]
    assert "2 studies" in small_print(figure)


def test_ranks_that_are_not_estimable(reach, analysis):
    for submission, time_s in (("a", 10.0), ("b", 20.0)):
        reach(time_s, submission=submission)
    figure = plot_ranks(analysis())
    (axes,) = figure.axes
    assert len(axes.lines) == 2
    assert not axes.collections
    assert not axes.texts
    assert small_print(figure) == (
        "Rank intervals are not estimable: digits has 1 study; 2 are needed."
    )


def test_percent():
    shares = [0, 0.001, 0.004, 0.006, 0.5, 0.994, 0.996, 0.9999, 1]
    assert [percent(share) for share in shares] == [
        "0 %", "<1 %", "<1 %", "1 %", "50 %", "99 %", ">99 %", ">99 %", "100 %"
    ]  # fmt: skip


# Speed-ups


def hatched(axes):
    return {
        (int(patch.get_x()), int(patch.get_y()))
        for patch in axes.patches
        if isinstance(patch, Rectangle) and patch.get_hatch()
    }


def test_speedups(competition, analysis):
    figure = plot_speedups(analysis("a"))
    assert figure.get_suptitle() == "mini-builtin, 2 workloads\nspeed-up over a"
    axes, bar = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["b", "a", "c"]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "digits", "lm", "geometric mean"
    ]  # fmt: skip
    # a takes 12 on digits and misses lm (budget 100). b: 12 / 24, 100 / 40 at least, mean
    # sqrt(0.5 * 2.5); c: 12 / 100 at most, 100 / 50 at least, mean sqrt(0.12 * 2) = 0.49.
    assert drawn(axes) == {
        (0, 0): "0.50", (1, 0): "≥2.50", (2, 0): "1.12",
        (0, 1): "1.00", (1, 1): "missed\nby both", (2, 1): "1.00",
        (0, 2): "≤0.12", (1, 2): "≥2.00", (2, 2): "0.49",
    }  # fmt: skip
    assert hatched(axes) == {(1, 1)}
    cells, means = axes.collections
    assert 2 ** cells.get_array()[0].filled(0) == pytest.approx([0.5, 2.5])
    assert 2 ** means.get_array().filled(0).ravel() == pytest.approx([1.25**0.5, 1, 0.24**0.5])
    # The widest is 1 / 0.12, 2 ** 3.06, beyond the widest scale; 1 lies in its middle.
    assert (cells.norm.vmin, cells.norm.vmax, means.norm.vmax) == (-3, 3, 3)
    assert [label.get_text() for label in bar.get_xticklabels()] == [
        "1/8", "1/4", "1/2", "1", "2", "4", "8"
    ]  # fmt: skip
    figure.canvas.draw()
    places = [label.get_window_extent() for label in bar.get_xticklabels()]
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(places))


def test_scale_is_never_narrower_than_half_to_double(reach, analysis):
    for study in (0, 1):
        reach(10.0, submission="a", study=study)
        reach(11.0, submission="b", study=study)
    axes, _ = plot_speedups(analysis()).axes
    assert (axes.collections[0].norm.vmin, axes.collections[0].norm.vmax) == (-1, 1)


def test_a_miss_without_a_budget_is_not_known(reach, miss, analysis):
    for study in (0, 1):
        reach(10.0, submission="a", study=study, budget_s=None)
        miss(submission="b", study=study, budget_s=None)
    axes, _ = plot_speedups(analysis()).axes
    assert drawn(axes) == {(0, 0): "1.00", (1, 0): "1.00", (0, 1): "not\nknown", (1, 1): "none"}
    assert hatched(axes) == {(0, 1), (1, 1)}


def test_number():
    values = [0.074, 0.05, 0.1, 0.996, 12.345, 123.4, 1e-300]
    assert [number(value, "") for value in values] == [
        "0.074", "0.050", "0.10", "1.00", "12.35", "123", "1.0e-300"
    ]  # fmt: skip
    assert (number(0.25, "<="), number(4.0, ">=")) == ("≤0.25", "≥4.00")


def test_ink_is_readable():
    # Luminance 0.179 is where black and white have equal contrast: a grey of 0.46.
    assert [ink((grey, grey, grey, 1)) for grey in (0, 0.45, 0.47, 1)] == [
        "white", "white", "black", "black"
    ]  # fmt: skip
