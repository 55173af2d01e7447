import subprocess
import sys
from pathlib import Path

BUILD = """
import sys
from pathlib import Path
from app import server, ui
from trainer.home import Home
desk, demo = ui.build(Home(Path(sys.argv[1])))
labels = [block.label for block in demo.blocks.values() if block.get_block_name() == "tabitem"]
assert labels == ["Dataset", "Train", "Preview"], labels
heavy = {"torch", "diffusers", "transformers", "accelerate", "safetensors"} & set(sys.modules)
assert not heavy, heavy
pulses = [event for event in demo.config["dependencies"] if event["targets"][0][1] == "tick" and event["queue"] is not False]
assert [(pulse["trigger_mode"], pulse["inputs"], pulse["outputs"]) for pulse in pulses] == [("once", [], [])], pulses
"""


def test_the_page_is_built_without_torch_and_touches_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    built = subprocess.run([sys.executable, "-c", BUILD, str(home)], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    assert not home.exists()
