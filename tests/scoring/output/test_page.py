"""The page: what it says, that nothing on it runs or is fetched, and what a browser makes of it."""

import html.parser
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

from scoring.analysis.analysis import analyse, summarise
from scoring.analysis.oddities import find_oddities
from scoring.output.page import COVERAGE_NOTE, charts, machines, render, svg, texts, write_page
from scoring.output.page.weaknesses import weaknesses
from scoring.reading.trials import Finding
from scoring.report import Options, make_boards

NAMESPACE = "http://www.w3.org/2000/svg"
HOSTILE_NAME = '"><img src=x onerror=alert(1)>'
HOSTILE_WORKLOAD = "d'\"><svg onload=alert(2)>"
HOSTILE_TEXT = "<script>alert(3)</script>{{ 7 * 7 }}"
EN_DASH = "\N{EN DASH}"
COMMAND = "algoperf score runs --out out"


class Reader(html.parser.HTMLParser):
    """Tags with their attributes, the text, and the rows of each labelled region."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.tables = [], "", {}
        self.region = self.cell = None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        facts = dict(attributes)
        self.tags.append((tag, facts))
        if facts.get("role") == "region":
            self.region = self.tables[facts["aria-label"]] = []
        if tag == "tr":
            self.region.append([])
        if tag in ("td", "th"):
            self.region[-1].append("")
            self.cell = tag

    def handle_endtag(self, tag):
        if tag == self.cell:
            self.cell = None

    def handle_data(self, data):
        self.text += data
        if self.cell:
            self.region[-1][-1] += " ".join(data.split()) and f"{' '.join(data.split())} "


def tables_of(text):
    tables = Reader(text).tables
    return {name: [[cell.strip() for cell in row] for row in t] for name, t in tables.items()}


def test_everything_is_named(tmp_path, page_of, quick_slow_lost):
    finding = Finding(tmp_path / "odd.csv", "ends in a torn line, which is left out")
    text = page_of(quick_slow_lost, [finding] * 3).read_text()
    read = Reader(text)
    ((analysis,), _) = quick_slow_lost
    board = analysis.board
    names = [*board.labels, "digits", "letters", board.rules.name, board.benchmark.name]
    names += ["accuracy", "learning_rate", finding.message, str(finding.path), COVERAGE_NOTE]
    names += [COMMAND, "expected score of a competition with 3 studies", "3 findings of 1 kind"]
    told = " ".join(read.text.split())
    assert [name for name in names if " ".join(name.split()) not in told] == []
    assert ("html", {"lang": "en"}) in read.tags
    metas = [facts.get("name") for tag, facts in read.tags if tag == "meta"]
    assert {"viewport", "color-scheme"} <= set(metas)
    toggles = [facts for tag, facts in read.tags if tag == "button"]
    assert [facts["aria-pressed"] for facts in toggles] == ["true"] * 3
    charts = [facts for tag, facts in read.tags if facts.get("class") == "chart"]
    panels = [(facts.get("data-w"), facts.get("data-axis")) for facts in charts]
    digits, letters = (
        [(name, axis) for axis in ("time", "steps")] for name in ("digits", "letters")
    )
    assert panels == [(None, None), *digits, *letters]


def test_numbers_are_those_of_the_analysis(page_of, quick_slow_lost):
    ((analysis,), _) = quick_slow_lost
    tables = tables_of(page_of(quick_slow_lost).read_text())
    ranking = tables["Leaderboard"][1:]
    ends, ranks = analysis.studies.score_interval, analysis.studies.rank_interval
    for place, row in enumerate(analysis.board.rows):
        cells = ranking[place]
        assert cells[:3] == [str(row.rank), row.entry.label, f"{row.score:.4f}"]
        assert [float(end) for end in cells[3].split(EN_DASH)] == pytest.approx(
            ends[place], abs=6e-4
        )
        low, _, high = cells[5].partition(EN_DASH)
        assert [float(low), float(high or low)] == ranks[place].tolist()
        assert cells[7] == f"{row.workloads_reached}/2"
        assert cells[8].startswith(f"{analysis.speedups.mean_S[place]:.2f}{texts.TIMES}")
        assert cells[9] == f"{row.steps_score:.4f}"
    # quick 9, slow 20, 21 and 22 s on both workloads: (4 - 21 / 9) / 3 = 0.5556
    assert [row[2] for row in ranking] == ["1.0000", "0.5556", "0.0000"]
    # 90 steps and 180: (4 - 2) / 3 = 0.6667
    assert [row[9] for row in ranking] == ["1.0000", "0.6667", "0.0000"]
    pairs = {row[0]: row[1:] for row in tables["Who beats whom"][1:]}
    assert (pairs["quick"], pairs["lost"]) == (
        [
            "",
            texts.probability(analysis.studies.p_beats[0, 1]).replace("\N{NO-BREAK SPACE}", " "),
            "> 99.9 %",
        ],
        ["< 0.1 %", "< 0.1 %", ""],
    )
    assert 0.98 < analysis.studies.p_beats[0, 1] < 1  # Twelve times are few to be sure from.
    sweep = {row[0]: row[1:] for row in tables["Other targets"][1:]}
    assert sweep["as it is"] == ["1.0000", "0.5556", "0.0000", "0"]
    assert sweep["1 % harder"][-1] == str(analysis.targets.unknown[-1]) != "0"
    trials = {row[0]: row[1:] for row in tables["Fewer trials"][1:]}
    assert trials["1 trial"] == [f"{score:.4f}" for score in analysis.trials_KS[0]]


def test_a_flagged_submission_is_marked_in_its_row(tmp_path, reach, analyses_of, page_of):
    text = "thread '<b>busy</b>' worked while the clock stood still"
    for study in range(2):
        reach(9.0, submission="cheat", study=study, result={"flags": [text] if study else []})
        reach(20.0, submission="honest", study=study)
    page = page_of(analyses_of(tmp_path / "runs")).read_text()
    ranking = tables_of(page)["Leaderboard"][1:]
    assert ranking[0][1] == f"cheat flagged in 1 of 2 trials {text}"
    assert ranking[1][1] == "honest"
    assert page.count('<details class="flagged">') == 1
    assert "<b>busy" not in page


def test_studies_of_a_workload(page_of, quick_slow_lost):
    tables = tables_of(page_of(quick_slow_lost).read_text())
    rows = tables["Studies on letters"][1:]
    ratio = f"2.33{texts.TIMES}"
    entry = ["slow", "21", "180", ratio, "credited"]
    assert rows[3] == [*entry, "0", "reached", "20", "180", "1", "10 → 20"]
    assert rows[4] == ["1", "reached", "21", "180", "1", "10.5 → 21"]
    entry = ["lost", "—", "—", "—", "target missed (median)"]
    assert rows[6][:6] == [*entry, "0"]
    assert rows[6][6] in ("not reached", "ended early")
    assert rows[6][7:] == ["—", "—", "—", "2 → never"]
    chosen = tables["Hyperparameters of quick on letters"]
    assert chosen[0] == ["", *(f"study {study}, trial 2" for study in range(3))]
    assert chosen[1] == ["learning_rate", "0.1", "0.1", "0.1"]


def test_robustness(tmp_path, held_out, analyses_of, page_of):
    page = page_of(analyses_of(tmp_path / "runs")).read_text().replace(texts.TIMES, "x")
    tables = tables_of(page)
    # The geometric means are worked out in test_robustness.py; c misses digits, a one variant.
    assert tables["By axis"] == [
        ["axis", "b", "a", "c"],
        ["all", "3/3, 1.27x", "2/3, 1.55x", "1/3 (base 1/3), 1.50x"],
        ["activation", "2/2, 1.17x", "2/2, 1.55x", "0/2 (base 0/2)"],
        ["norm_place", "1/1, 1.50x", "0/1", "1/1, 1.50x"],
        ["width", "1/1, 1.25x", "1/1, 2.00x", "0/1 (base 0/1)"],
    ]
    variants = tables["By variant"]
    post_ln = "ag_news_post_ln ag_news with norm_place post"
    assert variants[1] == [post_ln, "b", "60", "90", "1.50x", "1.50x", "reached"]
    assert variants[2] == ["a", "40", "—", "∞", "∞", "not reached"]
    wide = "digits_wide digits with activation gelu, width 2.0"
    assert variants[7:] == [
        [wide, "b", "20", "25", "1.25x", "2.50x", "reached"],
        ["a", "10", "20", "2.00x", "4.00x", "reached"],
        ["c", "—", "30", "—", "—", "base not reached"],
    ]
    ranking = tables["Leaderboard"]
    assert ranking[0][-1] == "score, base workloads alone"
    assert [(row[1], row[2], row[-1]) for row in ranking[1:]] == [
        ("b", "0.8889", "0.8333"),
        ("a", "0.6667", "1.0000"),
        ("c", "0.5741", "0.5000"),
    ]
    assert "Without a held-out variant: xsum." in Reader(page).text
    # Twice as slow is shaded as a missed variant; where the base was missed there is no shade. Two
    # at sqrt(2.4) and one missed: (1/2 - log2(2.4) / 4) 2 / 3 = 0.1228, 38 % below the middle.
    shades = re.findall(r'<td class="under" style="--t:(\d+)%">(0/1|1/1, 2.00x|2/3, 1.55x)', page)
    assert shades == [("38", "2/3, 1.55x"), ("50", "0/1"), ("50", "1/1, 2.00x")]


def test_held_out_variants_that_are_left_out_are_told(tmp_path, held_out, reach):
    boards, findings = make_boards([tmp_path / "runs"], Options(held_out=False))
    analyses = [analyse(summarise(board, resamples=20), resamples=20) for board in boards]
    read = Reader(render(analyses, findings, COMMAND))
    assert "3 held-out variants were left out (--no-held-out)" in " ".join(read.text.split())
    assert "Robustness" not in read.text
    assert "base workloads alone" not in read.tables["Leaderboard"][0]
    links = [facts["href"] for tag, facts in read.tags if tag == "a"]
    assert [link for link in links if "robustness" in link] == []


def test_one_study_is_not_estimable(tmp_path, reach, analyses_of):
    for name, time_s in (("a", 10.0), ("b", 30.0)):
        reach(time_s, submission=name)
    analyses, findings = analyses_of(tmp_path / "runs")
    text = render(analyses, findings, COMMAND)
    why = analyses[0].studies.not_estimable
    assert f"not estimable: {why}" in " ".join(Reader(text).text.split())
    head, first, second = tables_of(text)["Leaderboard"]
    assert " ".join([*first, *second]).count("interval not estimable") == 1
    assert head[:4] == ["#", "submission", "score", "workloads credited"]  # no column of dashes
    assert first[:4] == ["1", "a", "1.0000", "1/1"]
    cells = [cell for table in tables_of(text).values() for row in table for cell in row]
    assert [cell for cell in cells if "nan" in cell.lower()] == []


def log_scalars(trial, rows):
    lines = ["global_step,loss,gradient_norm,learning_rate"]
    lines += [",".join(map(str, row)) for row in rows]
    (trial / "measurements.csv").write_text("\n".join(lines) + "\n")


def test_training_scalars_are_drawn_against_time_and_steps(tmp_path, reach, analyses_of):
    trial = reach(10.0, 100)  # evaluations after 50 steps, 5 s, and after 100 steps, 10 s
    log_scalars(trial, [(0, 4.0, 1, 0), (50, 2.0, 1, 1e-3), (100, 1.0, 1, 1e-1), (120, 1.0, 1, "")])
    reach(10.0, 100, trial=2)  # which logged none
    ((analysis,), _) = analyses_of(tmp_path / "runs")
    groups = charts.curve_groups(analysis.board)
    assert [group["title"] for group in groups] == [
        *("Validation metric", "Training loss", "Learning rate")
    ]
    metric, loss, rate = ({p["axis"]: p["svg"] for p in group["panels"]} for group in groups)
    assert metric["steps"].count("data-l=") == 2
    assert loss["time"].count("data-l=") == loss["steps"].count("data-l=") == 1
    # The plot is 3,580 units wide and 1.01 times the last point long: of 10 s, of 120 steps.
    (time,) = re.findall(r'd="M([^"]*)" data-l', loss["time"])
    (steps,) = re.findall(r'd="M([^"]*)" data-l', loss["steps"])
    assert [int(n) for n in re.findall(r"-?\d+", time)][::2] == [0, 1772, 1773]
    assert [int(n) for n in re.findall(r"-?\d+", steps)][::2] == [0, 1477, 1477, 591]
    # The learning rate 0 has no logarithm; 1e-3 to 1e-1, with 6 % of two decades on each side.
    low, high = (float(end) for end in re.search(r'data-y="(\S+) (\S+)"', rate["steps"]).groups())
    assert (low, high) == pytest.approx((-3.12, -0.88))
    assert 'data-log="1"' in rate["steps"]
    assert "data-log" not in loss["steps"]
    assert "1e\N{MINUS SIGN}2" in rate["steps"]
    told = " ".join(Reader(render([analysis], [], COMMAND)).text.split())
    assert "Learning rate" in told


def test_times_of_steps_lie_between_evaluations_and_noise_is_averaged():
    rows = {"accumulated_submission_time": np.array([2.0, np.nan, 6.0])}
    rows["global_step"] = np.array([10.0, 15.0, 20.0])
    found = charts._times_s(rows, np.array([0.0, 5.0, 15.0, 20.0, 21.0]))
    np.testing.assert_allclose(found, [0.0, 1.0, 4.0, 6.0, np.nan])
    assert np.isnan(charts._times_s({}, np.array([1.0]))).all()
    many = charts._binned(np.arange(3000.0))
    assert (len(many), many[0], many[-1]) == (150, 9.5, 2989.5)
    assert charts._binned(np.arange(3.0)).tolist() == [0.0, 1.0, 2.0]


def test_every_trial_of_a_study_is_listed(tmp_path, reach, miss, analyses_of):
    for study in (0, 1):
        tried = {trial: reach(10.0 * trial, study=study, trial=trial) for trial in (1, 2)}
        tried[3] = miss(study=study, trial=3)
        for trial, folder in tried.items():
            (folder / "hparams.json").write_text(json.dumps({"rate": 0.1 * trial, "b": None}))
    (tried[3] / "hparams.json").write_text("{}")
    analyses, findings = analyses_of(tmp_path / "runs")
    text = render(analyses, findings, COMMAND)
    head, *rows = tables_of(text)["Trials of adamw on digits"]
    assert head == ["study", "trial", "outcome", "time s", "steps", "best accuracy", "rate", "b"]
    assert rows[:3] == [
        ["0", "1", "reached", "10", "100", "0.9", "0.1", "null"],
        ["0", "2", "reached", "20", "200", "0.9", "0.2", "null"],
        ["0", "3", "not reached", "2", "20", "0.6", "0.3", "null"],
    ]
    assert rows[5] == ["1", "3", "not reached", "2", "20", "0.6", "—", "—"]
    assert text.count('<tr class="chosen">') == 2  # trial 1 of both studies


def test_columns_of_dashes_alone_are_left_out(tmp_path, miss, analyses_of):
    for study in (0, 1):
        miss(study=study, status="budget")
    analyses, findings = analyses_of(tmp_path / "runs")
    text = render(analyses, findings, COMMAND)
    tables = tables_of(text)
    assert tables["Studies on digits"][0] == [
        *("submission", "credit", "study", "outcome", "last miss → hit, s")
    ]
    assert "speed-up over" not in " ".join(tables["Leaderboard"][0])
    assert tables["Intervals by what varies"][0] == ["submission"]
    told = " ".join(Reader(text).text.split())
    assert "Left out, as there is no value: score, over studies; rank, over studies;" in told
    assert "Over studies, not estimable: all submissions and workloads have 2 studies" in told
    assert "1 workload; 3 are needed" in told
    cells = [list(zip(*table[1:], strict=False)) for table in tables.values() if len(table) > 1]
    assert not any(set(column) <= {"—"} for columns in cells for column in columns)


def page_text(analysis):
    return " ".join(Reader(render([analysis], [], COMMAND)).text.split())


def test_what_weakens_a_ranking_stands_above_it(tmp_path, reach, miss, analyses_of):
    busy = {"resources": {"other_cores": 0.5, "cores": 2}}
    idle = {"resources": {"other_cores": 0.1, "cores": 2}}
    reach(10.0, 100, submission="a", result=busy)
    reach(10.0, 30, submission="a", trial=2, result=idle)
    reach(20.0, 200, submission="b", framework="pytorch", result={"flags": ["slept"]})
    miss(submission="b", framework="pytorch", trial=2, status=None)
    of_a, of_b = "a/study_0/digits_jax/trial_1", "b/study_0/digits_pytorch/trial_1"
    for trial, cpu in ((of_a, "X"), (of_b, "Y")):
        path = tmp_path / "runs" / "mini-builtin" / trial / "flags_0.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "hardware": {"cpu": cpu}}))
    ((analysis,), _) = analyses_of(tmp_path / "runs")
    assert weaknesses(analysis, machines.machines(analysis.board)) == [
        "no interval, as digits has 1 study; 2 are needed",
        "one workload, which says nothing of others",
        "1 trial interrupted, so that medians may move",
        "b flagged for what a submission should not do",
        "two frameworks (jax and pytorch), whose own speed is in the times",
        "machines that differ in processor",
        "a busy machine: other processes worked during 1 trial",
        "step times that differ up to 3.3 times between trials of one submission",
    ]
    text = page_text(analysis)
    assert text.index("What weakens this ranking: no interval") < text.index("workloads credited")
    told = [finding.message for finding in find_oddities(row.entry for row in analysis.board.rows)]
    assert (
        "a on digits: busy machine: other processes used up to 25% of the cores of 1 trial" in told
    )


def test_nothing_weakens_a_whole_one(quick_slow_lost):
    ((analysis,), _) = quick_slow_lost
    assert "What weakens" not in page_text(analysis)


def test_nothing_to_score():
    text = render([], [Finding(Path("x"), "broken")], COMMAND)
    assert "Nothing was scored" in text
    assert "broken" in text


@pytest.mark.parametrize(
    "rows",
    [
        [(-5.0, 1, "nan"), (-1.0, 2, 1e300)],
        [("nan", "nan", "nan")],
        [(1e300, 1e300, -1e300), ("inf", 5, "-inf"), (3.0, 2, 0.5)],
        [(0.0, 0, 0.9)],
        [("x", "y", "z")],
        [],
    ],
)
def test_odd_curves_are_drawn_or_left_out(tmp_path, reach, make_trial, rows, analyses_of):
    for study in range(2):
        reach(1e-9, submission="a", study=study)
        make_trial(rows, submission="b", study=study)
        make_trial(rows, submission="b", study=study, workload="alone")
    analyses, findings = analyses_of(tmp_path / "runs")
    for _, facts in Reader(render(analyses, findings, COMMAND)).tags:
        if "data-x" in facts:
            for axis in ("data-x", "data-y"):
                low, high = map(float, facts[axis].split())
                assert -np.inf < low < high < np.inf
        if facts.get("d"):
            assert re.fullmatch(r"[MlhHVvz0-9 .-]+", facts["d"])


def test_hostile_texts_are_escaped(tmp_path, reach, analyses_of):
    for study, name in itertools.product(range(2), (HOSTILE_NAME, "plain")):
        trial = reach(10.0, submission=name, study=study, workload=HOSTILE_WORKLOAD)
        value = {HOSTILE_TEXT: HOSTILE_TEXT, "list": [HOSTILE_TEXT], "deep": {"a": None}}
        (trial / "hparams.json").write_text(json.dumps(value))
        flags = json.loads((trial / "flags_0.json").read_text())
        flags["hardware"] = {"cpu": HOSTILE_TEXT, "accelerators": [HOSTILE_NAME]}
        changes = {HOSTILE_NAME: HOSTILE_TEXT, "x" * 500: HOSTILE_TEXT * 50}
        variant = {"base_workload": HOSTILE_WORKLOAD, "changes": changes}
        reach(12.0, submission=name, study=study, workload="v<b>", flags=flags | variant)
        (trial / "flags_0.json").write_text(json.dumps(flags))
    analyses, findings = analyses_of(tmp_path / "runs")
    findings += [Finding(Path(HOSTILE_NAME), HOSTILE_TEXT), Finding(Path("\udcff"), "\x00\u202e")]
    path = write_page(analyses, findings, f"score {HOSTILE_TEXT}", tmp_path / "report.html")
    text = path.read_text()
    read = Reader(text)
    tags = [tag for tag, _ in read.tags]
    assert (tags.count("script"), tags.count("img"), tags.count("style")) == (1, 0, 1)
    assert [facts for _, facts in read.tags for name in facts if name.startswith("on")] == []
    for hostile in (HOSTILE_NAME, HOSTILE_WORKLOAD, HOSTILE_TEXT):
        assert hostile in read.text
        assert hostile not in text
    charts = [facts for tag, facts in read.tags if facts.get("class") == "chart"]
    assert charts[1]["data-w"] == HOSTILE_WORKLOAD


def test_nothing_is_fetched(page_of, quick_slow_lost):
    text = page_of(quick_slow_lost).read_text()
    assert set(re.findall(r"\w+://[^\s'\"<>]*", text)) == {NAMESPACE}
    read = Reader(text)
    for tag, facts in read.tags:
        assert not {"src", "srcset", "action", "data", "poster"} & facts.keys(), tag
        assert facts.get("href", "#").startswith("#")
    assert not re.search(r"@import|url\(|\beval\b|\bfetch\(|XMLHttpRequest|innerHTML", text)


def test_hardware_is_read_from_either_kind_of_keys(tmp_path, reach, analyses_of):
    ours, theirs, broken = (
        [reach(10.0, submission=name, study=study) for study in range(2)]
        for name in ("ours", "theirs", "zz_broken")
    )
    flags = json.loads((ours[0] / "flags_0.json").read_text())
    flags["hardware"] = {"cpu": "Some CPU", "threads": 4, "accelerators": ["GPU"] * 2, "system": 3}
    flags["versions"] = {"python": "3.11.1", "jax": "0.10"}
    (ours[0] / "flags_0.json").write_text(json.dumps(flags))
    meta = {"gpu_model_name": "V100", "gpu_count": 8, "cpu_model_name": "Xeon", "gpu_driver": "5"}
    (theirs[0] / "meta_data_0.json").write_text(json.dumps(meta | {"git_commit_hash": "f" * 40}))
    (broken[0] / "meta_data_0.json").write_text("{torn")
    (broken[1] / "meta_data_1.json").write_text("[" * 100_000)
    ((analysis,), _) = analyses_of(tmp_path / "runs")
    found = machines.machines(analysis.board)
    told = {
        row["label"]: dict(zip(found["facts"], row["of"], strict=True)) for row in found["rows"]
    }
    assert told["ours"]["accelerators"] == f"2 {texts.TIMES} GPU"
    assert told["ours"]["processor"] == "Some CPU, 4 threads"
    assert (told["ours"]["Python"], told["ours"]["packages"]) == ("3.11.1", "jax 0.10")
    assert told["theirs"]["accelerators"] == f"8 {texts.TIMES} V100"
    assert told["theirs"]["code version"] == "f" * 12
    assert set(told["zz_broken"].values()) == {None}
    assert found["differing"] == ["accelerators", "processor"]
    text = render([analysis], [], COMMAND)
    assert "differ in accelerators and processor" in text
    assert tables_of(text)["Hardware and versions"][-1][1] == "not recorded"


def test_lines_keep_what_matters():
    frame = svg.Frame((0.0, 100.0), (0.0, 1.0), 0.0, 0.0, 100.0, 100.0)
    x = np.linspace(0.0, 100.0, 1001)
    smooth = 0.5 + 0.04 * np.sin(x / 10)
    kept = svg.thin(frame.place(x, smooth))
    assert 10 < kept.sum() < 60
    restored = np.interp(x, x[kept], smooth[kept])
    assert np.abs(restored - smooth).max() * 1000 <= svg.TOLERANCE + 1
    spike = np.full(1001, 0.5)
    spike[500] = 0.9
    assert np.flatnonzero(svg.thin(frame.place(x, spike))).tolist() == [0, 499, 500, 501, 1000]
    flat = svg.thin(frame.place(x, np.full(1001, 0.5)), keep=[7])
    assert np.flatnonzero(flat).tolist() == [0, 7, 1000]
    y = np.array([0.1, np.nan, 0.3, 0.4, np.inf])
    lines = [svg.Points(np.arange(5.0), y), svg.Points(np.arange(2.0), np.full(2, np.nan))]
    lines += [svg.Points(np.empty(0), np.empty(0)), svg.Points(np.arange(3.0), np.ones(3), (1,))]
    paths = ["M0 900h0M20 700l10-100", "", "", "M0 0l10 0 10 0"]
    assert svg.broken_lines(frame, lines) == paths
    assert svg.broken_lines(frame, lines[1:3]) == ["", ""]
    assert svg.broken_lines(frame, []) == []
    far = frame.place(np.array([0.0]), np.array([-1e300]))
    assert far.tolist() == [[0, 2000]]


def test_ticks_are_round():
    assert [text for _, text in svg.ticks(0.0, 1.0, 5)] == [
        "0.0",
        "0.2",
        "0.4",
        "0.6",
        "0.8",
        "1.0",
    ]
    assert [value for value, _ in svg.ticks(-3.0, 12.0, 4)] == [0.0, 5.0, 10.0]
    assert [text for _, text in svg.ticks(-0.02, 0.03, 3)] == ["\N{MINUS SIGN}0.02", "0.00", "0.02"]
    assert len(list(svg.ticks(1.0, 1.0 + 1e-15, 5))) < 20
    assert len(list(svg.ticks(-2e30, 2e30, 5))) < 20


def test_texts():
    shares = [texts.probability(share) for share in (0.0, 0.5, 1.0)]
    assert [" ".join(share.split()) for share in shares] == ["< 0.1 %", "50.0 %", "> 99.9 %"]
    assert [texts.count(x) for x in (0.0, 9.125, 12345.6, np.inf)] == ["0", "9.12", "12,346", "—"]
    assert texts.foreign("x" * 1000) == "x" * 119 + "…"
    assert texts.foreign(float("nan")) == "nan"
