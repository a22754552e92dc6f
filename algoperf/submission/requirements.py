"""Compare the `requirements.txt` beside a submission with what is installed.

Nothing is ever installed.
"""

from importlib import metadata
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement

FILE_NAME = "requirements.txt"


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
