"""Who may work on a run, where several machines share one store.

A lease is a tag of the run: state, random token, end, and place of its holder. It is claimed, read
back after a while, then held and renewed. Clocks need not agree: a lease counts as abandoned when
whoever waits has watched it for its whole length without a change.
"""

import contextlib
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

from mlflow.entities import Run

from resnet.store import FAILURES, Store

SECONDS, SETTLE = 60.0, 2.0  # a lease's length; how long after a claim everyone has seen it
TAG, ABANDONED = "lease", "abandoned"
# The clock goes on while a machine sleeps: a laptop that was closed for an hour must not believe
# that its lease of a minute still holds.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lost(Exception):  # noqa: N818 - not an error
    """Another process has taken the run over: nothing more may be written to it."""


def machine() -> str:
    """Returns a name of this machine or container, another one after each restart."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/mnt")
    own = boot.read_text().strip() if boot.exists() else uuid.getnode()
    # of two containers on one host each has its own files and processes
    return f"{socket.gethostname()}:{own}:{space.readlink() if space.is_symlink() else ''}"


def read(run: Run) -> dict[str, str]:
    """Reads a run's lease: ``state``, ``token``, ``until`` and ``place``; empty if abandoned."""
    words = run.data.tags.get(TAG, "").split(" ", 3)
    whole = len(words) == 4
    return dict(zip(("state", "token", "until", "place"), words, strict=True)) if whole else {}


class Lease:
    """This process's lease on a run, and what it has seen of other processes' leases.

    The process holds the file ``lock``, so that earlier holders of it on this machine are dead.
    """

    def __init__(self, store: Store, lock: Path):
        self.store = store.impatient  # while the store is away, nobody takes the run
        self.place, self.token = f"{machine()}:{lock}", uuid.uuid4().hex
        self.lost, self._renewed = False, time.clock_gettime(_CLOCK)
        self._seen: dict[str, tuple[dict, float, float]] = {}

    def tag(self, state: Literal["claimed", "held"]) -> str:
        return f"{state} {self.token} {time.time() + SECONDS:.3f} {self.place}"

    def alive(self, run: Run) -> bool:
        """Returns whether another process works on the run, as far as this one has watched."""
        lease = read(run)
        if not self.store.shared or run.info.status != "RUNNING" or not lease:
            return False
        if lease["place"] == self.place or lease["token"] == self.token:
            return False
        # the end in the lease is for people: two machines' clocks may differ by minutes
        now = time.clock_gettime(_CLOCK)
        before, since, last = self._seen.get(run.info.run_id, (None, now, now))
        if before != lease or now - last > SECONDS / 4:  # it changed, or nobody looked for a while
            since = now
        self._seen[run.info.run_id] = (lease, since, now)
        return now - since < SECONDS

    def ours(self, run_id: str, contenders: list[Run]) -> bool:
        """Returns whether this process may train the run, by a rule on which all agree.

        A held lease goes before a claimed one, and of two claims the lower run id.
        """

        def rank(run: Run) -> tuple[bool, str]:
            return read(run).get("state") != "held", run.info.run_id

        mine = next((run for run in contenders if run.info.run_id == run_id), None)
        if mine is None or read(mine).get("token") != self.token:
            return False
        return all(rank(mine) < rank(run) for run in contenders if self.alive(run))

    @contextlib.contextmanager
    def kept(self, run_id: str, still_ours: Callable[[], bool]) -> Iterator[None]:
        """Renews the lease in a thread until the end, as long as ``still_ours`` returns True."""
        ended = threading.Event()

        def renew() -> None:
            # read before it is written: a lease that another took must not be written over
            self.lost = self.lost or not still_ours()
            if not self.lost:
                self.store.client.set_tag(run_id, TAG, self.tag("held"))
                self._renewed = time.clock_gettime(_CLOCK)

        def keep_renewing() -> None:  # three renewals may fail before anyone takes the run
            while not (self.lost or ended.wait(SECONDS / 4)):
                with contextlib.suppress(*FAILURES):
                    renew()

        self._renew, self._renewed = renew, time.clock_gettime(_CLOCK)
        thread = threading.Thread(target=keep_renewing, daemon=True)
        if self.store.shared:
            thread.start()
        try:
            yield
        finally:
            ended.set()
            if self.store.shared:
                thread.join(timeout=5)

    def confirm(self) -> None:
        """Raises ``Lost`` if another process has the run; asks the store if renewing is overdue."""
        if self.store.shared and time.clock_gettime(_CLOCK) - self._renewed > SECONDS:
            self._renew()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        if self.lost:
            raise Lost
