"""Files of `algoperf pack` as folders, so that what reads folders reads them too."""

import atexit
import shutil
import tempfile
from pathlib import Path

from algoperf.errors import UserError
from algoperf.run_folder import archive

# By the file's path, time and size. Each folder is removed as the process ends: curves and facts of
# machines are read long after the trials.
_FOLDERS: dict[tuple[Path, int, int], Path] = {}


def folder_of(file: Path) -> Path:
    """Return a folder that has the runs of a file; it is unpacked once in a process.

    Raises:
        UserError: The file is none that `algoperf pack` wrote, or there is no room to unpack it.
    """
    facts = file.stat()
    key = (file.resolve(), facts.st_mtime_ns, facts.st_size)
    if key not in _FOLDERS:
        try:
            folder = Path(tempfile.mkdtemp(prefix="algoperf-runs-")).resolve()
        except OSError as error:
            raise UserError(
                f"{file} cannot be unpacked in {tempfile.gettempdir()} ({error.strerror})"
            ) from error
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        archive.unpack(file, folder)
        _FOLDERS[key] = folder
    return _FOLDERS[key]
