"""Who may work on a run, where several machines share one store.

A lease is a tag of the run: a token that nobody else has, where its holder is, and until when. It
is claimed, read back after a while, then held and renewed. Nothing depends on clocks that agree:
a lease is abandoned when whoever waits has watched it for its whole length without a change.
"""

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from mlflow.entities import Run

from resnet.store import FAILURES, Store

SECONDS, SETTLE = 60.0, 2.0
"""A lease's length, and how long after a claim everyone has seen it."""
TAG, ABANDONED = "lease", "abandoned"
# The clock goes on while a machine sleeps: a laptop that was closed for an hour must not believe
# that its lease of a minute still holds.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lost(Exception):  # noqa: N818 - not an error
    """Another process has taken the run over: nothing more may be written to it."""


def machine() -> str:
    """Names this machine, or container, until it is started anew."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/mnt")
    own = boot.read_text().strip() if boot.exists() else uuid.getnode()
    # of two containers on one host each has its own files and processes
    return f"{socket.gethostname()}:{own}:{space.readlink() if space.is_symlink() else ''}"


def _read(run: Run) -> dict[str, str]:
    parts = run.data.tags.get(TAG, "").split(" ", 3)
    whole = len(parts) == 4  # given up, or edited by hand
    return dict(zip(("state", "token", "until", "place"), parts, strict=True)) if whole else {}


class Lease:
    """One process's dealings with the leases of one kind of run.

    Args:
        store: where the runs are.
        lock: a file whose lock is held meanwhile; nobody else of this machine who has the same
            can be alive.
    """

    def __init__(self, store: Store, lock: Path):
        self.store = store.impatient  # while the store is away, nobody takes the run
        self.place = f"{machine()}:{lock}"
        self.token = uuid.uuid4().hex
        self.lost = False
        self._renewed = time.clock_gettime(_CLOCK)
        self._seen: dict[str, tuple[dict, float, float]] = {}

    def tag(self, state: str) -> str:
        """Writes the tag's text; ``state`` is ``claimed`` or ``held``."""
        return f"{state} {self.token} {time.time() + SECONDS:.3f} {self.place}"

    def alive(self, run: Run) -> bool:
        """Says whether somebody else is at the run, as far as was seen."""
        lease = _read(run)
        if not self.store.shared or run.info.status != "RUNNING" or not lease:
            return False
        if lease.get("place") == self.place or lease.get("token") == self.token:
            return False
        # Two machines' clocks may differ by minutes, so that what a lease says of its end is for
        # people: only that it did not change while it was watched counts.
        now = time.clock_gettime(_CLOCK)
        before, since, last = self._seen.get(run.info.run_id, (None, now, now))
        if before != lease or now - last > SECONDS / 4:  # it changed, or nobody looked for a while
            since = now
        self._seen[run.info.run_id] = (lease, since, now)
        return now - since < SECONDS

    def ours(self, run_id: str, contenders: list[Run]) -> bool:
        """Says whether the run is this process's to train, by a rule on which all will agree."""

        # A lease that is held goes before one that is claimed, and of two claims the lower id: all
        # who see both agree without a word, and SETTLE lets everyone see both.
        def rank(run: Run) -> tuple[bool, str]:
            return _read(run).get("state") != "held", run.info.run_id

        mine = next((run for run in contenders if run.info.run_id == run_id), None)
        if mine is None or _read(mine).get("token") != self.token:
            return False
        return all(rank(mine) < rank(run) for run in contenders if self.alive(run))

    @contextlib.contextmanager
    def kept(self, run_id: str, still_ours: Callable[[], bool]) -> Iterator[None]:
        """Renews the lease until the end, as long as ``still_ours`` says so."""
        ended = threading.Event()

        def renew() -> None:
            while not ended.wait(SECONDS / 4):
                with contextlib.suppress(*FAILURES):
                    if not self._renew(run_id, still_ours):
                        return

        # a quarter of a lease's length: three renewals may fail before anyone takes the run
        self._check = lambda: self._renew(run_id, still_ours)
        self._renewed = time.clock_gettime(_CLOCK)
        thread = threading.Thread(target=renew, daemon=True)
        if self.store.shared:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if thread.ident:
                thread.join(timeout=5)

    def _renew(self, run_id: str, still_ours: Callable[[], bool]) -> bool:
        # read before it is written: a lease that another took meanwhile must not be written over
        if self.lost or not still_ours():
            self.lost = True
            return False
        self.store.client.set_tag(run_id, TAG, self.tag("held"))
        self._renewed = time.clock_gettime(_CLOCK)
        return True

    def confirm(self) -> None:
        """Confirms the lease before a write; asks the store only if renewing is overdue.

        Raises:
            Lost: another process has taken the run over.
        """
        if self.store.shared and time.clock_gettime(_CLOCK) - self._renewed > SECONDS:
            self._check()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        """Raises ``Lost`` if it is known that another process has taken the run over."""
        if self.lost:
            raise Lost
