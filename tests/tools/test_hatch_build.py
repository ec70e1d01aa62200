"""The hook that compiles the kernel: what it makes can be loaded, and where it cannot make it, it says why."""

from __future__ import annotations

import importlib.util
import runpy
from pathlib import Path
from typing import Any

import pytest

_HOOK = Path(__file__).parents[2] / "hatch_build.py"


@pytest.fixture
def hook() -> dict[str, Any]:
    return runpy.run_path(str(_HOOK), run_name="hook")


@pytest.fixture
def broken(hook: dict[str, Any], tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "kernel.c").write_text("this is no C")
    hook["compile_kernel"].__globals__["PACKAGE"] = tmp_path
    return hook


def test_what_is_compiled_can_be_loaded(hook: dict[str, Any], tmp_path: Path) -> None:
    try:
        path = hook["compile_kernel"](tmp_path)
    except hook["CannotCompileError"] as error:
        pytest.skip(f"no compiler: {error}")
    spec = importlib.util.spec_from_file_location("_kernel", path)
    assert spec is not None
    assert callable(importlib.util.module_from_spec(spec).move_in_turn)
    assert list(tmp_path.iterdir()) == [path]


def test_without_a_compiler_it_says_so(hook: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(hook["CannotCompileError"], match="there is no C compiler"):
        hook["compile_kernel"](tmp_path)


def test_when_the_compiler_fails_nothing_is_left(broken: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(broken["CannotCompileError"], match=r"failed|no C compiler|headers"):
        broken["compile_kernel"](tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["kernel.c"]


@pytest.mark.parametrize(
    ("needs", "manylinux"),
    [(b"GLIBC_2.2.5\0GLIBC_2.14", True), (b"GLIBC_2.2.5\0GLIBC_2.38", False), (b"", False)],
    ids=["old glibc", "new glibc", "another libc"],
)
def test_wheel_says_which_glibc_it_needs(
    hook: dict[str, Any], tmp_path: Path, needs: bytes, *, manylinux: bool
) -> None:
    (tmp_path / "kernel.so").write_bytes(needs)
    assert hook["platform_tag"](tmp_path / "kernel.so").startswith("manylinux_2_17_") is manylinux
