"""Children that outlive their parent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from trainer.children import launch


def test_a_process_is_apart_from_the_terminal_and_tells_its_log(tmp_path: Path) -> None:
    log = tmp_path / "new" / "log.txt"
    process = launch(["-c", "import os, sys; print(os.getcwd(), file=sys.stderr)"], log, subprocess.DEVNULL, subprocess.DEVNULL)
    if sys.platform != "win32":
        assert os.getpgid(process.pid) == process.pid
    assert process.wait(20) == 0
    assert (Path(log.read_text().strip()) / "trainer" / "__init__.py").is_file()
