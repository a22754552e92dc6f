"""`algoperf decide` on runs that are written here in place of being run."""

import json
import math
from pathlib import Path

import pytest

from algoperf.cli import commands
from algoperf.errors import UserError
from algoperf.experiments import decide
from scoring.decisions.rule import Settings

TARGET = {"metric": "accuracy", "higher_is_better": True, "validation": 0.9, "test": None}
LIVE = Settings(first=1.0, further=1.0, stops=("bounds",))


class Written:
    """Runs with known times to target; each run is written up to the clock that is asked for."""

    def __init__(self, times_s):
        self.times_s, self.calls = times_s, []

    def run(self, processes, entry, out, goal_s):
        self.calls.append((entry.submission, entry.workload, entry.study, goal_s))
        end_s = self.times_s[entry.submission, entry.workload]
        clock_s = min(end_s, goal_s)
        folder = entry.folder(out, 1)
        folder.mkdir(parents=True, exist_ok=True)
        is_over = clock_s >= end_s
        rows = [(0.1, 1, 0.1), (clock_s / 2, 5, 0.5), (clock_s, 10, 0.9 if is_over else 0.6)]
        text = "\n".join(",".join(map(str, row)) for row in rows)
        header = "accumulated_submission_time,global_step,validation/accuracy"
        (folder / "eval_measurements.csv").write_text(f"{header}\n{text}\n")
        facts = {"target": TARGET, "budget_s": 1000.0}
        (folder / "flags_0.json").write_text(json.dumps(facts | {"pool": {"scale": "mini"}}))
        if is_over:
            (folder / "result.json").write_text(json.dumps(facts | {"status": "reached"}))


@pytest.fixture
def written(monkeypatch):
    made = Written(
        {
            ("nadamw", "digits"): 1.0,
            ("nesterov", "digits"): 50.0,
            ("nadamw", "ag_news"): 10.0,
            ("nesterov", "ag_news"): 20.0,
        }
    )
    monkeypatch.setattr(decide, "_run", made.run)
    return made


def question(out, **facts):
    usual = {"framework": "pytorch", "studies": 1, "out": out}
    return decide.Question(["nadamw", "nesterov"], ["digits", "ag_news"], **(usual | facts))


def test_it_runs_caps_decides_and_logs(tmp_path, written):
    lines = []
    outcome = decide.decide(question(tmp_path), LIVE, lines.append)
    # nadamw meets digits after 1 s, so nesterov is stopped there at 4 s, without credit.
    assert outcome.lines == ["nadamw is ahead of nesterov (whatever the rest would give)"]
    assert outcome.verdicts[0, 1].by == "bounds"
    assert ("nesterov", "digits", 0, pytest.approx(4.0)) in written.calls
    assert written.calls[0][3] == math.inf
    assert lines[0].startswith("next: ")
    assert decide.again(tmp_path / "decisions.jsonl") == outcome.lines
    head, known, *rest = map(json.loads, (tmp_path / "decisions.jsonl").read_text().splitlines())
    assert head["contest"]["submissions"] == ["nadamw", "nesterov"]
    assert known["known"] == []
    assert rest[-1]["verdicts"] == outcome.lines


def test_what_is_there_is_not_run_again(tmp_path, written):
    first = decide.decide(question(tmp_path), LIVE, lambda line: None)
    count = len(written.calls)
    assert count > 0
    again = decide.decide(question(tmp_path), LIVE, lambda line: None)
    assert len(written.calls) == count
    assert again.lines == first.lines
    assert again.spent_s == pytest.approx(first.spent_s)


def test_a_limit_ends_it_undecided(tmp_path, written):
    outcome = decide.decide(question(tmp_path, most_s=0.5, studies=3), LIVE, lambda line: None)
    assert outcome.lines == ["nadamw against nesterov: budget spent, not decided"]
    assert outcome.spent_s >= 0.5


def test_a_run_that_gets_nowhere_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(decide, "_run", lambda *arguments: None)
    with pytest.raises(UserError, match="got no further; algoperf status shows why"):
        decide.decide(question(tmp_path), LIVE, lambda line: None)


def test_one_submission_is_nothing_to_decide(tmp_path, capsys):
    words = ["decide", "nadamw", "--workloads", "digits", "--out", str(tmp_path)]
    assert commands.main(words) == 2
    assert "give at least two submissions" in capsys.readouterr().err


def test_the_command_says_what_was_run(tmp_path, written, capsys):
    words = ["decide", "nadamw", "nesterov", "--workloads", "digits,ag_news", "--studies", "1"]
    assert commands.main([*words, "--out", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "nadamw is ahead of nesterov" in shown
    assert "s of submission time were run; prior: none" in shown


def test_studies_are_run_alone():
    _, entries = decide._contest(question("out", studies=3))
    command = entries[0, 0, 2].command(Path("out"))
    assert command[command.index("--study-range") + 1] == "2:2"
    assert command[command.index("--studies") + 1] == "3"
    assert math.isinf(decide._seen_of([1.0, None, False, [], []]).hit_s)
