"""`--carbon`: measure the energy and the emissions of a trial with codecarbon, offline.

codecarbon measures the whole machine, including other programs. Where it has no sensor it
estimates from constants; each figure says whether it was. No score depends on any of them.
"""

import contextlib
import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from algoperf.errors import UserError
from algoperf.run_folder import run_log, writing
from algoperf.study import companions
from algoperf.trial.plan import TrialPlan

OPTION = "--carbon"
WORLD = "world average"
ESTIMATE = "estimate"
# The modes in which codecarbon measures a processor with a sensor, and the sensor's name.
CPU_SENSORS = {
    "intel_rapl": "RAPL",
    "windows_emi": "Windows Energy Meter Interface (RAPL)",
    "intel_power_gadget": "Intel Power Gadget",
}
PARTS = ("cpu", "gpu", "ram")
PROCESSES = "processes"


class Carbon:
    """Follows each trial with a codecarbon tracker, in the process that starts the trial.

    The figures of each process that a trial ran in are kept in its run folder, and they add up.

    Args:
        country: The code of three letters of the country whose electricity is assumed; None assumes
            the world average.
    """

    name = OPTION

    def __init__(self, country: str | None = None) -> None:
        self._country = country
        self._tracker: Any = None
        self._folder = Path()
        self._earlier: list[dict[str, Any]] = []
        self._last: Any = None  # The data that codecarbon handed over last.

    def begin(self, plan: TrialPlan, folder: Path) -> None:
        """Start to measure.

        A first reading is made at once, since it loads what the later ones need.
        """
        self._folder, self._earlier, self._last = folder, [], None
        self._tracker = _tracker(self._country, folder, self)
        self._tracker.start()
        self._tracker.flush()
        if self._last is None:  # codecarbon hides its own exceptions.
            raise RuntimeError("codecarbon measured nothing")

    def event(self, event: dict[str, Any]) -> None:
        """At the start, read the figures of earlier processes; at evaluations, keep this one's."""
        if event["event"] == "start":
            kept = run_log.read_json(self._folder / run_log.CARBON) or {}
            self._earlier = kept.get(PROCESSES, [])
        elif event["event"] == "evaluation":
            self._tracker.flush()
            self._keep()

    def end(self, result: dict[str, Any] | None) -> dict[str, Any]:
        """Stop measuring, and return the figures of all processes of the trial together.

        Returns:
            'carbon' with the figures that `total` returns; empty if there is no trial.
        """
        self._tracker.stop()
        if not self._folder.is_dir() or run_log.read_flags(self._folder) is None:
            return {}  # It was a user's mistake, which leaves no trial.
        self._keep()
        return {"carbon": total([*self._earlier, self._now()])}

    def out(self, total: Any, delta: Any) -> None:
        """Receive codecarbon's data, as one of its output methods, where it would write a file."""
        self._last = total

    def exit(self) -> None:
        """Do nothing; codecarbon calls this on its output methods when it stops."""

    def _keep(self) -> None:
        with writing.into(self._folder):
            kept = {PROCESSES: [*self._earlier, self._now()]}
            run_log.write_json(self._folder / run_log.CARBON, kept)

    def _now(self) -> dict[str, Any]:
        return figures(self._last, sensors(self._tracker._hardware), self._country or WORLD)


def check(country: str | None) -> None:
    """Check that `--carbon` can be used.

    Args:
        country: The code of three letters of a country, or None.

    Raises:
        UserError: codecarbon is not installed, or does not know the country.
    """
    companions.need(OPTION, "codecarbon", "carbon")
    if country is None:
        return
    known = importlib.import_module("codecarbon.input").DataSource().get_global_energy_mix_data()
    if country not in known:
        raise UserError(
            f"--carbon-country {country!r}: codecarbon does not know it; expected a code of three "
            f"letters, as USA, DEU or IND (or leave it out, for the {WORLD})"
        )


def _tracker(country: str | None, folder: Path, output: Carbon) -> Any:
    """Return a tracker that writes no file and uses no network, whatever the user's settings."""
    codecarbon = importlib.import_module("codecarbon")
    logging.getLogger("codecarbon").setLevel(logging.ERROR)
    average_g = None
    if country is None:
        source = importlib.import_module("codecarbon.input").DataSource()
        average_g = source.get_carbon_intensity_per_source_data()["world_average"]
    return codecarbon.OfflineEmissionsTracker(
        country_iso_code=country,
        country_2letter_iso_code=None,
        region=None,
        cloud_provider=None,
        cloud_region=None,
        force_carbon_intensity_g_co2e_kwh=average_g,
        electricitymaps_api_token="",
        emissions_endpoint=None,
        output_methods=[],
        output_handlers=[output],
        output_dir=str(folder),
        tracking_mode="machine",
        allow_multiple_runs=True,
        log_level="error",
        pue=1.0,
        wue=0.0,
    )


def sensors(hardware: Sequence[Any]) -> dict[str, str]:
    """Return the sensor by which codecarbon reads each part of the machine, or 'estimate: ...'.

    Args:
        hardware: codecarbon's descriptions of the parts.

    Returns:
        The sensors of 'cpu', 'gpu' and 'ram', as far as codecarbon measures them.
    """
    sensors_by_name = {}
    for each in hardware:
        match type(each).__name__:
            case "CPU":
                estimate = f"{ESTIMATE}: {_cpu_estimate(each)}"
                sensors_by_name["cpu"] = CPU_SENSORS.get(each._mode, estimate)
            case "GPU":
                sensors_by_name["gpu"] = "NVML"
                with contextlib.suppress(AttributeError, IndexError):
                    if "AMD" in type(each.devices.devices[0]).__name__.upper():
                        sensors_by_name["gpu"] = "AMD SMI"
            case "RAM":
                sensors_by_name["ram"] = f"{ESTIMATE}: by the size of memory"
            case "AppleSiliconChip":
                sensors_by_name[each.chip_part.lower()] = "powermetrics"
            case "Raspberry":
                sensors_by_name[each.chip_part.lower()] = "the board's power controller"
    return {part: sensors_by_name[part] for part in PARTS if part in sensors_by_name}


def _cpu_estimate(cpu: Any) -> str:
    kind = "an unknown processor's" if getattr(cpu, "_is_generic_tdp", False) else "the"
    power = f"{kind} design power of {cpu._tdp:g} W"
    if cpu._mode == "cpu_load":
        return f"by load and {power}"
    return f"a constant share of {power}" if cpu._mode == "constant" else f"{cpu._mode}, {power}"


def figures(data: Any, sensors: dict[str, str], country: str) -> dict[str, Any]:
    """Return the figures of one process from codecarbon's data.

    Args:
        data: codecarbon's data.
        sensors: The sensor of each part.
        country: The country, or the world average.

    Returns:
        Energy in kWh (total, by part, and the part of it that was estimated), emissions in kg of
        CO2 equivalent, the time that was measured in seconds, and how they were measured.
    """
    parts = {part: float(getattr(data, f"{part}_energy")) for part in sensors}
    return {
        "energy_kwh": float(data.energy_consumed),
        "estimated_kwh": sum(parts[part] for part in sensors if is_estimate(sensors[part])),
        "co2_kg": float(data.emissions),
        "measured_s": float(data.duration),
        "energy_kwh_by_part": parts,
        "sensors": sensors,
        "country": country,
        "codecarbon": data.codecarbon_version,
    }


def is_estimate(sensor: str) -> bool:
    """Return whether an entry of `sensors` names no sensor, so that the figure is an estimate."""
    return sensor.startswith(ESTIMATE)


def total(processes: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Add up the figures of all processes of a trial.

    Args:
        processes: What `figures` returned for each process, at least one.

    Returns:
        The entries of the result. Among them are `is_estimate`, whether no sensor was read at all;
        `estimated_kwh`, the part of the energy that no sensor read; and `grid_g_per_kwh`, the grams
        of CO2 equivalent that were assumed for each kWh.
    """
    names = ("energy_kwh", "estimated_kwh", "co2_kg", "measured_s")
    summed: dict[str, Any] = {name: sum(each[name] for each in processes) for name in names}
    by_part = {}
    for part in PARTS:
        of_part = [each["energy_kwh_by_part"].get(part) for each in processes]
        if any(value is not None for value in of_part):
            by_part[part] = sum(value or 0.0 for value in of_part)
    read_by = {
        part: " and ".join(sorted({each["sensors"].get(part, "nothing") for each in processes}))
        for part in by_part
    }
    every = [sensor for each in processes for sensor in each["sensors"].values()]
    energy_kwh = summed["energy_kwh"]
    return {
        **summed,
        "energy_kwh_by_part": by_part,
        "sensors": read_by,
        "is_estimate": all(is_estimate(sensor) for sensor in every),
        "country": " and ".join(sorted({each["country"] for each in processes})),
        "grid_g_per_kwh": 1000 * summed["co2_kg"] / energy_kwh if energy_kwh > 0 else None,
        "scope": "the whole machine, other programs included",
        "source": f"codecarbon {processes[-1]['codecarbon']}, offline",
    }


def line(carbon: dict[str, Any]) -> str:
    """Return the figures in one line of text, which says where they are estimates."""
    energy_kwh, estimated_kwh = carbon["energy_kwh"], carbon["estimated_kwh"]
    kind = "an estimate, no sensor was read" if carbon["is_estimate"] else "measured"
    if not carbon["is_estimate"] and estimated_kwh > 0 and energy_kwh > 0:
        kind += f", but for {estimated_kwh / energy_kwh:.0%} of it"
    read_by = "; ".join(f"{part}: {sensor}" for part, sensor in carbon["sensors"].items())
    grid = carbon["grid_g_per_kwh"] or 0.0
    return (
        f"energy: {energy_kwh:.3g} kWh ({kind}; {read_by}), {1000 * carbon['co2_kg']:.3g} g CO2 "
        f"equivalent at {grid:.0f} g/kWh ({carbon['country']}); the whole machine for "
        f"{carbon['measured_s']:.1f} s"
    )
