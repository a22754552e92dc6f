"""Energy and CO2: figures worked out by hand; and codecarbon, where the extra is installed."""

import importlib.util
import json
import re
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest

from algoperf.errors import UserError
from algoperf.run_folder import run_log
from algoperf.study import carbon

needs_codecarbon = pytest.mark.skipif(
    importlib.util.find_spec("codecarbon") is None,
    reason="codecarbon is not installed (pip install 'algoperf[carbon]')",
)


class CPU(SimpleNamespace):
    """As codecarbon's, by its name and the attributes that are read."""


class RAM:
    pass


class GPU:
    devices = SimpleNamespace(devices=[])


@pytest.mark.parametrize(
    ("mode", "generic", "expected"),
    [
        ("intel_rapl", False, "RAPL"),
        ("cpu_load", False, "estimate: by load and the design power of 65 W"),
        ("cpu_load", True, "estimate: by load and an unknown processor's design power of 65 W"),
        ("constant", False, "estimate: a constant share of the design power of 65 W"),
        ("a_new_mode", False, "estimate: a_new_mode, the design power of 65 W"),
    ],
)
def test_the_sensor_is_named(mode, generic, expected):
    cpu = CPU(_mode=mode, _tdp=65, _is_generic_tdp=generic)
    found = carbon.sensors([RAM(), cpu, GPU()])
    assert found == {"cpu": expected, "gpu": "NVML", "ram": "estimate: by the size of memory"}
    assert list(found) == ["cpu", "gpu", "ram"]
    assert carbon.is_estimate(found["cpu"]) == (mode != "intel_rapl")


def data(cpu, ram, emissions, duration, gpu=0.0):
    return SimpleNamespace(
        cpu_energy=cpu,
        ram_energy=ram,
        gpu_energy=gpu,
        energy_consumed=cpu + ram + gpu,
        emissions=emissions,
        duration=duration,
        codecarbon_version="3.3.2",
    )


ESTIMATED = {"cpu": "estimate: by load", "ram": "estimate: by size"}
MEASURED = {**ESTIMATED, "cpu": "RAPL"}


def test_an_estimate_is_called_one():
    one = carbon.figures(data(0.003, 0.001, 0.002, 60.0), ESTIMATED, "DEU")
    found = carbon.total([one])
    assert found["is_estimate"] is True
    assert found["energy_kwh"] == found["estimated_kwh"] == 0.004
    assert found["grid_g_per_kwh"] == pytest.approx(500.0)  # 2 g for 0.004 kWh
    assert carbon.line(found) == (
        "energy: 0.004 kWh (an estimate, no sensor was read; cpu: estimate: by load; ram: "
        "estimate: by size), 2 g CO2 equivalent at 500 g/kWh (DEU); the whole machine for 60.0 s"
    )


def test_processes_of_a_trial_add_up_with_their_sensors():
    processes = [
        carbon.figures(data(0.003, 0.001, 0.002, 60.0), MEASURED, "DEU"),
        carbon.figures(data(0.005, 0.001, 0.001, 40.0), ESTIMATED, "FRA"),
    ]
    found = carbon.total(json.loads(json.dumps(processes)))
    assert found["energy_kwh"] == pytest.approx(0.010)
    assert found["estimated_kwh"] == pytest.approx(0.007)  # all but the first's 0.003
    assert found["energy_kwh_by_part"] == pytest.approx({"cpu": 0.008, "ram": 0.002})
    assert (found["co2_kg"], found["measured_s"]) == pytest.approx((0.003, 100.0))
    assert found["grid_g_per_kwh"] == pytest.approx(300.0)
    assert found["is_estimate"] is False
    assert found["sensors"] == {"cpu": "RAPL and estimate: by load", "ram": "estimate: by size"}
    assert found["country"] == "DEU and FRA"
    assert "measured, but for 70% of it; cpu: RAPL and estimate: by load" in carbon.line(found)


def test_nothing_used_has_no_grid():
    found = carbon.total([carbon.figures(data(0.0, 0.0, 0.0, 0.0), MEASURED, "DEU")])
    assert found["grid_g_per_kwh"] is None
    assert "at 0 g/kWh" in carbon.line(found)


class FakeTracker:
    """Hands over, at each flush, what the test says."""

    def __init__(self, output):
        self._hardware = [CPU(_mode="cpu_load", _tdp=65), RAM()]
        self.output, self.now, self.stopped = output, data(0.0, 0.0, 0.0, 0.0), False

    def start(self):
        pass

    def flush(self):
        self.output.out(self.now, None)

    def stop(self):
        self.stopped = True
        self.flush()


@pytest.fixture
def follow(monkeypatch, tmp_path):
    """Begins a trial's process: (what follows it, its tracker)."""
    trackers = []

    def make(country, folder, output):
        trackers.append(FakeTracker(output))
        return trackers[-1]

    monkeypatch.setattr(carbon, "_tracker", make)

    def begin():
        follows = carbon.Carbon("DEU")
        follows.begin(None, tmp_path)
        run_log.write_json(tmp_path / "flags_0.json", {})
        follows.event({"event": "start"})
        return follows, trackers[-1]

    return begin


def test_a_trial_that_goes_on_adds_up(follow, tmp_path):
    """The first process dies after an evaluation: what it took until then was kept."""
    follows, tracker = follow()
    tracker.now = data(0.003, 0.001, 0.002, 60.0)
    follows.event({"event": "evaluation"})
    follows, tracker = follow()
    tracker.now = data(0.005, 0.001, 0.003, 40.0)
    follows.event({"event": "evaluation"})
    found = follows.end({})["carbon"]
    assert tracker.stopped
    assert found["energy_kwh"] == pytest.approx(0.010)
    assert found["measured_s"] == pytest.approx(100.0)
    assert len(json.loads((tmp_path / run_log.CARBON).read_text())["processes"]) == 2
    assert follow()[0].end(None)["carbon"]["energy_kwh"] == pytest.approx(0.010)


def test_a_mistake_leaves_no_file(follow, tmp_path):
    follows, _ = follow()
    (tmp_path / "flags_0.json").unlink()  # as the trial's process takes it back
    assert follows.end(None) == {}
    assert not any(tmp_path.iterdir())


@needs_codecarbon
def test_a_country_that_codecarbon_does_not_know():
    carbon.check("DEU")
    carbon.check(None)
    with pytest.raises(UserError, match="--carbon-country 'Germany': codecarbon does not know it"):
        carbon.check("Germany")


@needs_codecarbon
@pytest.mark.slow
@pytest.mark.parametrize(("country", "grid"), [("FRA", None), (None, 475.0)])
def test_codecarbon_asks_no_network_and_writes_no_file(tmp_path, monkeypatch, country, grid):
    """Whatever its own settings say. `grid`: grams a kWh, codecarbon's average of the world."""

    asked = []  # codecarbon swallows exceptions

    def refuse(*arguments):
        asked.append(arguments)
        raise OSError("no network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.chdir(tmp_path)
    for name, value in (
        ("SAVE_TO_FILE", "true"),
        ("OUTPUT_DIR", "."),
        ("CO2_SIGNAL_API_TOKEN", "x"),
    ):
        monkeypatch.setenv(f"CODECARBON_{name}", value)
    folder = tmp_path / "trial_1"
    folder.mkdir()
    follows = carbon.Carbon(country)
    follows.begin(None, folder)
    assert not any(folder.iterdir())
    run_log.write_json(folder / "flags_0.json", {})
    follows.event({"event": "start"})
    follows.event({"event": "evaluation"})
    found = follows.end(None)["carbon"]
    assert asked == []
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["carbon.json", "flags_0.json"]
    assert 0 < found["energy_kwh"] == pytest.approx(sum(found["energy_kwh_by_part"].values()))
    assert found["co2_kg"] == pytest.approx(found["energy_kwh"] * found["grid_g_per_kwh"] / 1000)
    assert found["country"] == (country or carbon.WORLD)
    assert found["grid_g_per_kwh"] == (
        pytest.approx(grid) if grid is not None else pytest.approx(56.0, abs=40.0)
    )
    assert found["is_estimate"] == all(map(carbon.is_estimate, found["sensors"].values()))
    assert {"cpu", "ram"} <= set(found["sensors"])


@needs_codecarbon
@pytest.mark.slow
def test_a_run_names_the_sensor_of_its_energy(tmp_path):
    words = ["--workload", "digits", "--submission", "adamw", "--framework", "pytorch", "--carbon"]
    ended = subprocess.run(
        [sys.executable, "-P", "-m", "algoperf", "run", *words, "--max-steps", "20"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = (line for line in ended.stdout.splitlines() if line.startswith("  energy:"))
    (path,) = tmp_path.glob("runs/**/result.json")
    result = json.loads(path.read_text())
    found = result["resources"]["carbon"]
    assert line == f"  {carbon.line(found)}"
    assert ("an estimate" in line) == found["is_estimate"]
    assert re.search(r"cpu: \S+", line)
    assert result["flags"] == []
    assert found["measured_s"] >= result["ledger"]["wall_s"]
    kept = json.loads(path.with_name("carbon.json").read_text())["processes"]
    assert [each["energy_kwh"] for each in kept] == [found["energy_kwh"]]
