"""Decides which process may train a run if several machines share a store.

A process claims a run by a tag, the lease. After ``SETTLE`` seconds it reads the tag again, then it
holds and renews the lease. Clocks need not agree, because other processes count a lease as over
only after they have watched it for ``SECONDS`` without a change.
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

SECONDS, SETTLE = 60.0, 2.0  # length of a lease; delay after which all have seen a claim
TAG, ABANDONED = "lease", "abandoned"
# This clock also counts while the machine sleeps. A laptop that was closed for an hour must know
# that its lease of one minute is over.
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


class Lost(Exception):  # noqa: N818 - not an error
    """Another process has taken over the run, so this process must not write to the run."""


def machine() -> str:
    """Returns a name for this machine or container that changes with each restart."""
    boot, space = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/mnt")
    own = boot.read_text().strip() if boot.exists() else uuid.getnode()
    # containers on one host share its boot id, but not its files and processes
    return f"{socket.gethostname()}:{own}:{space.readlink() if space.is_symlink() else ''}"


def read(run: Run) -> dict[str, str]:
    """Returns the ``state``, ``token``, ``until`` and ``place`` of a run's lease, else {}."""
    words = run.data.tags.get(TAG, "").split(" ", 3)
    whole = len(words) == 4
    return dict(zip(("state", "token", "until", "place"), words, strict=True)) if whole else {}


class Lease:
    """This process's lease of a run; the object also watches the leases of other processes.

    The process must hold the file ``lock``. So earlier processes of this machine that held ``lock``
    have ended.
    """

    def __init__(self, store: Store, lock: Path):
        self.store = store.impatient  # no wait: the lease is safe if the store is down
        self.place, self.token = f"{machine()}:{lock}", uuid.uuid4().hex
        self.lost, self._renewed = False, time.clock_gettime(_CLOCK)
        self._seen: dict[str, tuple[dict, float, float]] = {}

    def tag(self, state: Literal["claimed", "held"]) -> str:
        return f"{state} {self.token} {time.time() + SECONDS:.3f} {self.place}"

    def alive(self, run: Run) -> bool:
        """Returns whether another process may be training the run, by the changes of its lease."""
        lease = read(run)
        if not self.store.shared or run.info.status != "RUNNING" or not lease:
            return False
        if lease["place"] == self.place or lease["token"] == self.token:
            return False
        # ``until`` is only for people to read, because clocks may differ by minutes
        now = time.clock_gettime(_CLOCK)
        before, since, last = self._seen.get(run.info.run_id, (None, now, now))
        if before != lease or now - last > SECONDS / 4:  # a change, or a gap in watching
            since = now
        self._seen[run.info.run_id] = (lease, since, now)
        return now - since < SECONDS

    def ours(self, run_id: str, contenders: list[Run]) -> bool:
        """Returns whether this process may train the run.

        All processes follow one rule: a held lease beats a claim, then the lowest run id wins.
        """

        def rank(run: Run) -> tuple[bool, str]:
            return read(run).get("state") != "held", run.info.run_id

        mine = next((run for run in contenders if run.info.run_id == run_id), None)
        if mine is None or read(mine).get("token") != self.token:
            return False
        return all(rank(mine) < rank(run) for run in contenders if self.alive(run))

    @contextlib.contextmanager
    def kept(self, run_id: str, still_ours: Callable[[], bool]) -> Iterator[None]:
        """Renews the lease in a thread during the block, while ``still_ours`` returns True."""
        ended = threading.Event()

        def renew() -> None:
            # the lease of another process must not be overwritten
            self.lost = self.lost or not still_ours()
            if not self.lost:
                self.store.client.set_tag(run_id, TAG, self.tag("held"))
                self._renewed = time.clock_gettime(_CLOCK)

        def keep_renewing() -> None:  # three renewals may fail before the lease is over
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
        """Raises ``Lost`` if another process has the run; renews the lease first if it is over."""
        if self.store.shared and time.clock_gettime(_CLOCK) - self._renewed > SECONDS:
            self._renew()
        self.raise_if_lost()

    def raise_if_lost(self) -> None:
        if self.lost:
            raise Lost
