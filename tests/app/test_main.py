import subprocess
import sys

import pytest

from app.__main__ import main
from trainer import __version__, cli
from trainer.home import Home


def test_commands_go_to_the_engine(capsys: pytest.CaptureFixture[str], home: Home) -> None:
    assert main(["--home", str(home.root), "stop", "nowhere"]) == 1
    assert "nowhere is not a run" in capsys.readouterr().err


@pytest.mark.parametrize("given", [["stop", "nowhere"], ["--home", "h", "stop", "nowhere", "--json"]])
def test_everything_from_the_command_on_is_the_engines(given: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    passed: list[str] = []

    def run(arguments: list[str]) -> int:
        passed.extend(arguments)
        return 7

    monkeypatch.setattr(cli, "main", run)
    assert main(given) == 7
    assert passed == given


@pytest.mark.parametrize(
    "given", [["bogus"], ["--port", "x"], ["--port", "70000"], ["--bogus"], ["--port", "1", "stop", "run"], ["train"]]
)
def test_wrong_usage_is_a_sentence_and_exit_code_2(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(given) == 2
    told = capsys.readouterr()
    assert len(told.err.strip().splitlines()) == 1
    assert told.out == ""


@pytest.mark.parametrize(("option", "wanted"), [("--help", ("--no-browser", "train", "resume")), ("--version", (__version__,))])
def test_help_tells_of_the_page_and_of_the_commands(
    option: str, wanted: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([option])
    assert ended.value.code == 0
    told = capsys.readouterr().out
    assert all(word in told for word in wanted)


def test_a_command_does_not_load_the_page() -> None:
    check = "import sys, app.__main__ as m; m.main(['stop', 'x']); sys.exit('gradio' in sys.modules or 'torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, check=False).returncode == 0
