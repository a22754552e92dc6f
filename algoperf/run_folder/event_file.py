"""TensorBoard's event file, appended to at once and in this thread: that a disk is full is seen
where it is written to, and a kill loses nothing.
"""

import io
import os
import socket
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

Row = tuple[int, Mapping[str, float | None]]  # step, values by name


class EventFile:
    """A new event file in a folder, which is made with its first rows."""

    def __init__(self, folder: Path) -> None:
        prefix = "events.out.tfevents"
        number = len(list(folder.glob(f"{prefix}.*")))
        name = f"{prefix}.{time.time():.0f}.{socket.gethostname()}.{os.getpid()}.{number}"
        self._path = folder / name

    def add(self, rows: Iterable[Row]) -> None:
        """Append rows; values that are None are left out. OSError where the disk does not take
        them.
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
    """The events as TensorBoard's records, with the time of now."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    records = io.BytesIO()
    for event in events:
        event.wall_time = time.time()
        RecordWriter(records).write(event.SerializeToString())
    return records.getvalue()
