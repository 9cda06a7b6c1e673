"""The engine's mutex: an RLock that an exception out of a signal's handler never leaves locked.

Until Python 3.13 no handler runs between the moment in which `with lock:` has the lock and the first line inside. From
3.14 on one may, and what it raises (KeyboardInterrupt) would leave the lock taken for ever.
"""

from __future__ import annotations

import _thread
import sys

if sys.version_info < (3, 14):
    Mutex = _thread.RLock
else:

    class Mutex:
        __slots__ = ("_is_owned", "_lock", "acquire", "release")

        def __init__(self) -> None:
            self._lock = _thread.RLock()
            self.acquire = self._lock.acquire
            self.release = self._lock.release
            self._is_owned = self._lock._is_owned

        def __enter__(self) -> None:
            before = self._lock._recursion_count()
            try:
                self.acquire()
            except BaseException:
                if self._lock._recursion_count() > before:
                    self.release()
                raise

        def __exit__(self, *_: object) -> None:
            self.release()
