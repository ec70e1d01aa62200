"""Ends a process group when the process that watches over it dies, however that dies."""

from __future__ import annotations

import os
import subprocess
from typing import Final

_SHELL: Final = "/bin/sh"
# Reading ends when nobody holds the other end of the pipe any more; nothing is ever written to it.
_SCRIPT: Final = 'read -r nothing; kill -9 "-$1"'


class GroupGuard:
    """A small process that waits for our death, and then kills a process group; made before there is more to kill.

    The kernel alone kills only the one process that we started (`PR_SET_PDEATHSIG`), not what that has started.

    Args:
        group: Id of the process group.

    Raises:
        OSError: If there is no shell, or no more processes are allowed.
    """

    def __init__(self, group: int) -> None:
        reading, self._writing = os.pipe()
        try:
            self._process = subprocess.Popen(  # noqa: S603 - a constant script and a number
                [_SHELL, "-c", _SCRIPT, "swarmkeel-guard", str(group)],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
        except BaseException:
            os.close(self._writing)
            raise
        finally:
            os.close(reading)

    def release(self) -> None:
        """End the guard, and leave the group alone; to be called once, and before the group's id can be another's."""
        self._process.kill()
        self._process.wait()
        os.close(self._writing)
