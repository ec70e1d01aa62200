"""Compile `src/swarmkeel/balance/kernel.c` where there is a compiler: hatchling calls this when it builds the package.

Without a compiler or Python's headers, or with SWARMKEEL_PURE set, the package is pure Python and decides the same, slower.
`python hatch_build.py` compiles into the checkout, as an editable install does.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Any

try:
    from hatchling.builders.hooks.plugin.interface import BuildHookInterface
except ImportError:  # run by hand
    BuildHookInterface = object

PACKAGE = Path(__file__).parent / "src" / "swarmkeel" / "balance"
NAME = "_kernel.abi3.so"
# No option that lets a compiler change what floats are rounded to: the answers have to be the same bits everywhere.
OPTIONS = ("-O2", "-ffp-contract=off", "-fno-fast-math", "-fPIC", "-shared", "-s")
OLDEST_GLIBC = 17
"""Of manylinux_2_17, which every glibc in use satisfies."""


class CannotCompileError(Exception):
    """There is no compiler, or it failed."""


def compile_kernel(folder: Path) -> Path:
    """Compile the kernel into a folder and give the file's path.

    Raises:
        CannotCompileError: If that is not possible here; says why.
    """
    compiler = shutil.which(os.environ.get("CC", "cc"))
    include = Path(sysconfig.get_path("include"))
    if compiler is None:
        raise CannotCompileError("there is no C compiler")
    if sys.implementation.name != "cpython" or not (include / "Python.h").is_file():
        raise CannotCompileError("Python's headers are not installed")
    path = folder / NAME
    # Beside its place first, so that no running program ever sees half of it.
    with tempfile.TemporaryDirectory(dir=folder) as beside:
        command = [compiler, *OPTIONS, f"-I{include}", str(PACKAGE / "kernel.c"), "-o", f"{beside}/{NAME}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 -- the compiler
        if done.returncode:
            raise CannotCompileError(f"{compiler} failed: {done.stderr.strip()[-2000:]}")
        Path(beside, NAME).replace(path)
    return path


def platform_tag(path: Path) -> str:
    """Give the platforms that a compiled file is for: manylinux, unless it needs a newer glibc or another libc."""
    platform = re.sub(r"[^a-z0-9]", "_", sysconfig.get_platform())
    needed = [int(minor) for minor in re.findall(rb"GLIBC_2\.(\d+)", path.read_bytes())]
    if needed and max(needed) <= OLDEST_GLIBC:
        return platform.replace("linux_", f"manylinux_2_{OLDEST_GLIBC}_", 1)
    return platform


class KernelHook(BuildHookInterface):
    """Puts the compiled kernel into the wheel."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Compile, see `compile_kernel`; where that is not possible the wheel is one of pure Python."""
        if self.target_name != "wheel" or os.environ.get("SWARMKEEL_PURE"):
            return
        try:
            if version == "editable":
                compile_kernel(PACKAGE)
                return
            self._folder = tempfile.TemporaryDirectory()
            path = compile_kernel(Path(self._folder.name))
        except CannotCompileError as error:
            self.app.display_warning(f"without the compiled kernel, which is optional: {error}")
            return
        build_data["force_include"][str(path)] = f"swarmkeel/balance/{NAME}"
        build_data["pure_python"] = False
        build_data["tag"] = f"cp311-abi3-{platform_tag(path)}"


if __name__ == "__main__":
    compile_kernel(PACKAGE)
