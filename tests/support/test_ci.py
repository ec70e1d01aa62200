"""In CI a skipped test is a failure; elsewhere it is a line that says so."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[2]


def _run(tmp_path: Path, source: str, ci: str) -> subprocess.CompletedProcess[str]:
    (tmp_path / "test_it.py").write_text(source)
    command = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "tests.support.ci", "-p", "no:cacheprovider"]
    return subprocess.run(
        [*command, "-c", os.devnull, "--rootdir", str(tmp_path), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=_ROOT,
        env={**os.environ, "CI": ci, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},  # others only take time
    )


@pytest.mark.parametrize(
    "source",
    [
        "import pytest\ndef test_it():\n    pytest.skip('no promtool')",
        "import pytest\n@pytest.mark.skipif(True, reason='no promtool')\ndef test_it():\n    pass",
        "import pytest\npytest.skip('no promtool', allow_module_level=True)",
    ],
)
def test_a_skip_fails_in_ci_alone(tmp_path: Path, source: str) -> None:
    in_ci = _run(tmp_path, source, "true")
    assert in_ci.returncode != 0
    assert "no promtool: in CI every test has to run" in in_ci.stdout
    elsewhere = _run(tmp_path, source, "")
    assert elsewhere.returncode in (0, pytest.ExitCode.NO_TESTS_COLLECTED)
    assert "SKIPPED" in elsewhere.stdout
    assert "no promtool" in elsewhere.stdout


def test_a_test_that_is_known_to_fail_is_no_skip(tmp_path: Path) -> None:
    source = "import pytest\n@pytest.mark.xfail(reason='known')\ndef test_it():\n    assert False"
    assert _run(tmp_path, source, "true").returncode == 0
