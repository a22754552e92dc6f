import configparser
import email
import os
import re
import shutil
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import algoperf

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("algoperf", "reference_algorithms", "scoring", "workloads")
FRAMEWORKS = {"flax", "jax", "optax", "torch"}
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run_python(code: str, cwd: Path = ROOT, **variables: str) -> str:
    command = [sys.executable, "-c", code]
    environment = {**os.environ, **variables}
    return subprocess.check_output(command, cwd=cwd, env=environment, text=True)


def project_files() -> list[Path]:
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(command, cwd=ROOT, text=True).splitlines()
    return [path for name in names if (path := ROOT / name).is_file()]


def setup_cfg() -> configparser.ConfigParser:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def requirement_lines(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.splitlines() if line and not line.startswith("#")]


def pins() -> dict[str, str]:
    lines = requirement_lines((ROOT / "constraints.txt").read_text("utf-8"))
    return {canonicalize_name(line.name): str(line.specifier).removeprefix("==") for line in lines}


def declared(*more: str) -> list[Requirement]:
    config = setup_cfg()
    extras = config["options.extras_require"]
    texts = [
        config["options"]["install_requires"],
        *(extras[key] for key in ("jax", "torch", "test", *more)),
    ]
    return [requirement for text in texts for requirement in requirement_lines(text)]


def test_version_is_the_packages_own():
    assert metadata.version("algoperf") == algoperf.__version__
    assert setup_cfg()["metadata"]["version"] == "attr: algoperf.__version__"


def test_changelog_has_a_section_for_unreleased_changes():
    assert re.search(r"^## \[?Unreleased", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)


def test_constraints_pin_exact_public_versions():
    for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines():
        assert line.startswith("#") or re.fullmatch(r"[\w.-]+==[\w.]+", line), line
        is_cuda = line.startswith(("nvidia", "cuda", "triton"))
        assert not is_cuda or line.startswith("nvidia-ml-py=="), line  # reads counters, 50 KB


@pytest.mark.parametrize("requirement", declared("algorithms"), ids=str)
def test_constraints_pin_what_is_declared_at_an_allowed_version(requirement):
    assert requirement.specifier.contains(pins()[canonicalize_name(requirement.name)])


def test_constraints_pin_everything_that_the_declared_packages_need_in_turn():
    pinned = pins()
    waiting = declared()
    seen = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        marker = requirement.marker
        if name in seen or (marker and not marker.evaluate({"extra": ""})):
            continue
        seen.add(name)
        if re.match("nvidia|cuda|triton", name):  # only the CUDA build of torch needs these
            continue
        assert name in pinned
        waiting += [Requirement(text) for text in metadata.requires(name) or []]


def test_no_file_names_this_machine_or_a_package_registry():
    hosts = "|".join(
        re.escape(".".join(parts)) for parts in (("pypi", "org"), ("files", "pythonhosted"))
    )
    hosts += "|" + re.escape(".".join(("download", "pytorch")))
    folders = "|".join(("work", "root", "opt"))
    pattern = re.compile(rf"{hosts}|(?<![\w.\-}})])/(?:{folders})/")
    for path in project_files():
        text = path.read_bytes().decode("utf-8", "ignore")
        found = pattern.search(text)
        assert not found, f"{relative(path)}: {found and found[0]}"


@pytest.fixture
def source_copy(tmp_path: Path) -> Path:
    """The project without what earlier builds left behind, which setuptools would pick up."""
    for path in project_files():
        copy = tmp_path / "source" / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    return tmp_path / "source"


def built_requirements(source: Path, bare: str) -> list[Requirement]:
    code = (
        "import setuptools.build_meta as b; print(b.prepare_metadata_for_build_wheel('metadata'))"
    )
    (source / "metadata").mkdir()
    environment = {**os.environ, "ALGOPERF_BARE": bare}
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=source, env=environment, capture_output=True, text=True, check=True,
    )  # fmt: skip
    folder = source / "metadata" / result.stdout.split()[-1]
    message = email.message_from_string((folder / "METADATA").read_text("utf-8"))
    return [Requirement(text) for text in message.get_all("Requires-Dist", [])]


@pytest.mark.parametrize(
    ("bare", "extra", "expected"),
    [
        ("", "", {"jax", "flax", "optax", "torch"}),
        ("1", "", set()),
        ("1", "jax", {"jax", "flax", "optax"}),
        ("1", "torch", {"torch"}),
    ],
)
def test_a_plain_install_has_both_frameworks_and_a_bare_one_those_of_its_extras(
    source_copy, bare, extra, expected
):
    names = {
        requirement.name
        for requirement in built_requirements(source_copy, bare)
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
    }
    assert names & FRAMEWORKS == expected
    assert {"numpy", "tensorboard", "tokenizers"} <= names


PAGE = (".css", ".html", ".js")


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_nothing_else(source_copy, tmp_path):
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path / "wheel"), str(source_copy)], check=True)
    (wheel,) = (tmp_path / "wheel").iterdir()
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    spaces = (ROOT / "reference_algorithms").glob("*.json")
    page = (path for path in (ROOT / "scoring/output/page").iterdir() if path.suffix in PAGE)
    assert names == {relative(path) for path in [*MODULES, *spaces, *page]}


@pytest.mark.parametrize(
    ("framework", "device", "extras"),
    [
        ("jax", "cpu", "jax"),
        ("pytorch", "cpu", "torch"),
        ("both", "cpu", "jax,torch"),
        ("jax", "gpu", "jax,cuda"),
        ("pytorch", "gpu", "torch"),
        ("both", "gpu", "jax,torch,cuda"),
        ("numpy", "cpu", None),
        ("jax", "tpu", None),
    ],
)
def test_docker_installs_what_its_arguments_ask_for(framework, device, extras):
    text = (ROOT / "docker/Dockerfile").read_text("utf-8").replace("\\\n", "")
    (command,) = re.findall(r"^RUN (.*)$", text, re.MULTILINE)
    stub = 'pip() { printf "%s bare=%s" "${!#}" "$ALGOPERF_BARE"; }; '
    environment = {**os.environ, "FRAMEWORK": framework, "DEVICE": device, "TORCH_WHEELS": ""}
    shell = ["bash", "-euo", "pipefail", "-c", stub + command]
    result = subprocess.run(shell, env=environment, capture_output=True, text=True, check=False)
    if extras is None:
        assert result.returncode == 2
        assert "one of" in result.stderr
    else:
        assert result.stdout == f".[{extras}] bare=1"
        assert set(extras.split(",")) <= set(setup_cfg()["options.extras_require"])


def test_pre_commit_runs_the_checks_of_ci():
    hooks = (ROOT / ".pre-commit-config.yaml").read_text("utf-8")
    commands = re.findall(r"entry: (.*?)(?: --force-exclude)?$", hooks, re.MULTILINE)
    assert commands == ["ruff format", "ruff check", "mypy"]
    script = (ROOT / ".ci/run").read_text("utf-8")
    assert all(re.search(rf"^ *{command}\b", script, re.MULTILINE) for command in commands)


def test_stages_of_ci():
    """A stage alone, of which `unit` and `parity` share plain `pytest`'s tests between them."""
    script = (ROOT / ".ci/run").read_text("utf-8")
    (names,) = re.findall(r"^over_workloads='(.*)'$", script, re.MULTILINE)
    assert names.split() == [
        f"tests/workloads/test_{name}.py" for name in ("parity", "conformance")
    ]
    assert all((ROOT / name).is_file() for name in names.split())
    for stage in ("lint", "unit", "parity", "slow", "wheel"):
        assert re.search(rf"^{stage}\(\) {{", script, re.MULTILINE)
    shell = ["bash", ".ci/run", "lint", "units"]
    ended = subprocess.run(shell, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "unknown stage 'units'; the stages are lint, unit, parity, slow, wheel\n"
