"""What a submission should not do and can be seen to do: work while its clock stands still, change
what measures it, change parameters during an evaluation.

Nothing here is a sandbox: docs/trust.md says what it catches, and what needs a container.
"""

import contextlib
import operator
import sys
import threading
import time
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

from algoperf.machine import processor_time

PACKAGES = ("algoperf", "workloads", "scoring")
CLOCKS = ("perf_counter", "perf_counter_ns", "monotonic", "monotonic_ns", "time", "sleep")
LEAST_S = 0.01  # processor time below this, in all, is noise
LEAST_SHARE = 0.02  # of the time in which the clock stood still: what a thread that polls may use
THREADS = ("enumerate", "Thread._bootstrap_inner")
Findings = Callable[[], list[str]]


class Guard:
    """Watches one trial's process from before its submission is loaded.

    `flags` are the findings so far, each once, in the words of the result. `monotonic` is the clock
    that measures the untimed stretches; tests pass their own. `packages` are watched beside
    `PACKAGES`, each with all that is in its outermost package.
    """

    def __init__(
        self,
        checksum: Callable[[Any], int] = lambda trained: 0,
        monotonic: Callable[[], float] = time.monotonic,
        packages: Iterable[str] = (),
    ) -> None:
        self.flags: list[str] = []
        self._watched: list[Findings] = []
        self._checksum = checksum
        processor_time.watch()
        self._threads = set(threading.enumerate())
        self._packages = {*PACKAGES, *(name.partition(".")[0] for name in packages)}
        self._definitions = definitions(self._packages)
        self._monotonic = monotonic
        self._untimed_s = 0.0
        self._worked_s: dict[str, float] = {}  # while the clock stood still, by name

    def watch(self, findings: Findings) -> None:
        """Ask for more flags before each untimed stretch."""
        self._watched.append(findings)

    @contextlib.contextmanager
    def untimed(self, trained: Callable[[], Any]) -> Iterator[None]:
        """Watch a stretch in which the submission's clock stands still. `trained()` is what
        `checksum` takes, the parameters and the model state, which are not to change in it.
        """
        self.inspect()
        busy, before = self._busy(), self._checksum(trained())
        began_s = self._monotonic()
        yield
        self._untimed_s += self._monotonic() - began_s
        if self._checksum(trained()) != before:
            self._flag("the parameters changed while the clock stood still")
        for name, spent_s in self._busy().items():
            # One evaluation may be shorter than what can be told from noise: all of them count.
            in_this_s = max(0.0, spent_s - busy.get(name, 0.0))
            worked_s = self._worked_s.get(name, 0.0) + in_this_s
            self._worked_s[name] = worked_s
            if worked_s > max(LEAST_S, LEAST_SHARE * self._untimed_s):
                self._flag(f"{name} worked while the clock stood still")
        self.look()

    def inspect(self) -> None:
        """Look at what measures, and ask what was given to `watch`."""
        self.look()
        for findings in self._watched:
            for text in findings():
                self._flag(text)

    def look(self) -> None:
        """Compare what measures with what it was."""
        now = definitions(self._packages)
        for name, value in self._definitions.items():
            if now.get(name, value) is not value:
                self._flag(f"{name} was replaced")

    def _busy(self) -> dict[str, float]:
        return processor_time.by_name(self._threads)

    def _flag(self, text: str) -> None:
        if text not in self.flags:
            self.flags.append(text)


def definitions(packages: Collection[str] = PACKAGES) -> Mapping[str, Any]:
    """The functions and classes that measure, by name: those of the loaded modules of these
    packages, the methods of their classes, the clocks, and what tells of threads.
    """
    by_name: dict[str, Any] = {f"time.{name}": getattr(time, name) for name in CLOCKS}
    by_name |= {f"threading.{name}": operator.attrgetter(name)(threading) for name in THREADS}
    for module_name, module in list(sys.modules.items()):
        if module_name.partition(".")[0] not in packages or module is None:
            continue
        for name, value in list(vars(module).items()):
            if callable(value):
                by_name[f"{module_name}.{name}"] = value
            if isinstance(value, type) and value.__module__ == module_name:
                by_name |= {
                    f"{module_name}.{name}.{attribute}": each
                    for attribute, each in list(vars(value).items())
                    if isinstance(each, types.FunctionType | property | staticmethod | classmethod)
                }
    return by_name
