"""TensorBoard's event file, written synchronously.

Rows are appended at once and in the calling thread: a full disk raises an error in the call that
meets it, and a killed process loses no rows.
"""

import io
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = tuple[int, Mapping[str, float | None]]  # A step, and its values by name.


class EventFile:
    """A new event file in a folder; it is created when the first rows are added."""

    def __init__(self, folder: Path) -> None:
        prefix = "events.out.tfevents"
        number = len(list(folder.glob(f"{prefix}.*")))
        name = f"{prefix}.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{number}"
        self._path = folder / name

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows of scalars.

        Args:
            rows: A step and its values by name, for each row. Values that are None are left out.

        Raises:
            OSError: The disk does not take the rows.
        """
        from tensorboard.compat.proto import event_pb2, summary_pb2

        events = [] if self._path.exists() else [event_pb2.Event(file_version="brain.Event:2")]
        for step, values in rows:
            scalars = [
                summary_pb2.Summary.Value(tag=name, simple_value=value)
                for name, value in values.items()
                if value is not None
            ]
            events.append(event_pb2.Event(step=step, summary=summary_pb2.Summary(value=scalars)))
        with self._path.open("ab") as file:
            file.write(_records(events))


def _records(events: Iterable[Any]) -> bytes:
    """Return the events in TensorBoard's record format, each stamped with the current time."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = io.BytesIO()
    for event in events:
        event.wall_time = time.time()
        RecordWriter(records).write(event.SerializeToString())
    return records.getvalue()
