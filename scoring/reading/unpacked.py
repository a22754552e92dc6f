"""Files of `algoperf pack` as folders, so that what reads folders reads them too."""

import tempfile
from pathlib import Path

from algoperf.errors import UserError
from algoperf.run_folder import archive

# By the file's path, time and size. Each folder is removed as the process ends: curves and facts of
# machines are read long after the trials.
_FOLDERS: dict[tuple[Path, int, int], "tempfile.TemporaryDirectory[str]"] = {}


def folder_of(file: Path) -> Path:
    """Return a folder that has the runs of a file; it is unpacked once in a process.

    Raises:
        UserError: The file is none that `algoperf pack` wrote, or there is no room to unpack it.
    """
    facts = file.stat()
    key = (file.resolve(), facts.st_mtime_ns, facts.st_size)
    if key not in _FOLDERS:
        try:
            folder = tempfile.TemporaryDirectory(prefix="algoperf-runs-")
        except OSError as error:
            raise UserError(
                f"{file} cannot be unpacked in {tempfile.gettempdir()} ({error.strerror})"
            ) from error
        archive.unpack(file, Path(folder.name))
        _FOLDERS[key] = folder
    return Path(_FOLDERS[key].name).resolve()
