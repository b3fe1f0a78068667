"""Decides which process may train a run if several machines share a store.

To claim a run, a process writes its lease as a tag. After ``SETTLE`` seconds, the process reads the
tag again. If no other claim has won, the process holds and renews the lease. A lease is over when
another process has seen the tag unchanged for ``SECONDS`` seconds, so clocks need not agree.
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

SECONDS, SETTLE = 60.0, 2.0  # seconds: length of a lease, and delay before a claim is checked
TAG, ABANDONED = "lease", "abandoned"
# This clock also counts while the machine sleeps. A laptop that was closed for an hour must know
# that its lease of one minute is over.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lost(Exception):  # noqa: N818 - not an error
    """Another process has taken over the run, so this process must not write to the run."""


def machine() -> str:
    """Returns a name for this machine or container. On Linux, each restart changes the name."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/mnt")
    own = boot.read_text().strip() if boot.exists() else uuid.getnode()
    # containers on one host share the boot id, so the mount namespace tells them apart
    return f"{socket.gethostname()}:{own}:{space.readlink() if space.is_symlink() else ''}"


def read(run: Run) -> dict[str, str]:
    """Returns a run's lease (``state``, ``token``, ``until``, ``place``), or {} if it has none."""
    words = run.data.tags.get(TAG, "").split(" ", 3)
    whole = len(words) == 4
    return dict(zip(("state", "token", "until", "place"), words, strict=True)) if whole else {}


class Lease:
    """Holds this process's lease on a run, and watches the leases of other processes.

    This process must hold the file lock at the path ``lock``. So another lease with the same
    ``place`` (machine and lock) comes from a process that has ended.
    """

    def __init__(self, store: Store, lock: Path):
        # renewals need not wait for a store that is down: nobody can take the run then
        self.store = store.impatient
        self.place, self.token = f"{machine()}:{lock}", uuid.uuid4().hex
        self.lost, self._renewed = False, time.clock_gettime(_CLOCK)
        self._seen: dict[str, tuple[dict, float, float]] = {}

    def tag(self, state: Literal["claimed", "held"]) -> str:
        return f"{state} {self.token} {time.time() + SECONDS:.3f} {self.place}"

    def alive(self, run: Run) -> bool:
        """Judges by the run's lease whether another process could still be training the run."""
        lease = read(run)
        if not self.store.shared or run.info.status != "RUNNING" or not lease:
            return False
        if lease["place"] == self.place or lease["token"] == self.token:
            return False
        # ``until`` is not used, because the clocks of two machines may differ by minutes
        now = time.clock_gettime(_CLOCK)
        before, since, last = self._seen.get(run.info.run_id, (None, now, now))
        if before != lease or now - last > SECONDS / 4:  # a changed lease, or a pause in watching
            since = now
        self._seen[run.info.run_id] = (lease, since, now)
        return now - since < SECONDS

    def ours(self, run_id: str, contenders: list[Run]) -> bool:
        """Returns whether this process may train the run.

        A held lease wins over a claim. Of two claimed runs of one job, the lower run id wins.
        """

        def rank(run: Run) -> tuple[bool, str]:
            return read(run).get("state") != "held", run.info.run_id

        mine = next((run for run in contenders if run.info.run_id == run_id), None)
        if mine is None or read(mine).get("token") != self.token:
            return False
        return all(rank(mine) < rank(run) for run in contenders if self.alive(run))

    @contextlib.contextmanager
    def kept(self, run_id: str, still_ours: Callable[[], bool]) -> Iterator[None]:
        """Renews a run's lease in a thread until the block ends or ``still_ours`` returns False."""
        ended = threading.Event()

        def renew() -> None:
            # the lease of another process must not be overwritten
            self.lost = self.lost or not still_ours()
            if not self.lost:
                self.store.client.set_tag(run_id, TAG, self.tag("held"))
                self._renewed = time.clock_gettime(_CLOCK)

        def keep_renewing() -> None:  # three renewals may fail before the lease ends
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
        """Renews an overdue lease. Raises ``Lost`` if another process has taken over the run."""
        if self.store.shared and time.clock_gettime(_CLOCK) - self._renewed > SECONDS:
            self._renew()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        if self.lost:
            raise Lost
