"""Say which packages a submission lacks: by its `requirements.txt`, or by an import that failed.

Nothing is ever installed.
"""

import importlib.util
import sys
from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

FILE_NAME = "requirements.txt"
LIBRARY = "algoperf"


def unmet(submission: Path) -> list[str]:
    """Return the requirements of a submission that are not met.

    Each names what is installed, as 'torch==2.1 (2.13.0 is installed)'. Lines that are not a
    requirement of a package (options, links, editable installs) are not checked.

    Args:
        submission: The submission's main file; `requirements.txt` is looked for beside it.
    """
    file = submission.with_name(FILE_NAME)
    if not file.is_file():
        return []
    texts = (
        line.partition("#")[0].strip()
        for line in file.read_text("utf-8-sig", "replace").split("\n")
    )
    return [reason for text in texts if text and (reason := _unmet(text)) is not None]


def unmet_text(submission: Path) -> str:
    """Return the unmet requirements as a clause of a message; empty where all are met."""
    missing = unmet(submission)
    return f"its {FILE_NAME} asks for {', '.join(missing)}" if missing else ""


def remedy(error: ImportError) -> str:
    """Return how to get what an import did not find, as a clause of a message; empty if unknown.

    It is the command that installs the package, where one of this library's extras has it, or the
    version of the package, where it is installed and lacks what is imported.
    """
    package = (error.name or "").partition(".")[0]
    if not package:
        return ""
    if _is_installed(package):
        try:
            return f"{package} {metadata.version(package)} is installed"
        except metadata.PackageNotFoundError:
            return ""
    extra = _extra_with(package)
    if extra is not None:
        return f"install it with: pip install '{LIBRARY}[{extra}]'"
    return "neither installed nor a file beside it"


def _is_installed(package: str) -> bool:
    if package in sys.modules:
        return sys.modules[package] is not None
    return importlib.util.find_spec(package) is not None


def _extra_with(package: str) -> str | None:
    """Return the first of this library's extras that brings a package; None if none does."""
    try:
        installed = metadata.metadata(LIBRARY)
        wanted = [Requirement(line) for line in metadata.requires(LIBRARY) or ()]
    except metadata.PackageNotFoundError:  # It runs from its source.
        return None
    own = [each for each in wanted if canonicalize_name(each.name) == canonicalize_name(package)]
    for extra in map(str, installed.get_all("Provides-Extra") or ()):
        if extra != "test" and any(
            each.marker is not None and each.marker.evaluate({"extra": extra}) for each in own
        ):
            return extra
    return None


def _unmet(text: str) -> str | None:
    try:
        wanted = Requirement(text)
    except InvalidRequirement:
        return None
    if wanted.marker is not None and not wanted.marker.evaluate():
        return None
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return f"{wanted.name}{wanted.specifier} (not installed)"
    if wanted.specifier.contains(version, prereleases=True):
        return None
    return f"{wanted.name}{wanted.specifier} ({version} is installed)"
