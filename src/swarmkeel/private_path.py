"""Who else may change a file that decides what this process does."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def open_to_everyone(path: Path) -> str | None:
    """Say how any user of this machine could change a file or put another in its place.

    Its group may: whoever gives a group the right to write means it, as fleets do for those who configure them.

    Args:
        path: The file; with a link, what it leads to counts too. One that is missing has its directory alone.

    Returns:
        What is wrong and what to do; None if all is well.

    Raises:
        OSError: If that cannot be found out.
    """
    if path.exists() and path.stat().st_mode & stat.S_IWOTH:
        return f"everyone may write to it: run chmod o-w {path}"
    for directory in {path.absolute().parent: None, path.resolve().parent: None}:
        mode = directory.stat().st_mode
        # In a directory with the sticky bit, such as /tmp, others can add files and not replace one. A volume that is
        # mounted read only, as Kubernetes mounts its own, has any mode and cannot be written to.
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX and not os.statvfs(directory).f_flag & os.ST_RDONLY:
            return f"everyone may put another file in its place: run chmod o-w {directory}"
    return None
