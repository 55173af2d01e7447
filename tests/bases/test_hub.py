"""The download of a base, against a server on this machine that answers as the Hub does."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import load_file, save, save_file

from tests.fake_hub import COMMIT, FakeHub, Handler, serving
from tests.tiny import save_base, short_run
from trainer import cli
from trainer.bases import remote
from trainer.bases.hub import cached, fetch, is_hub_source
from trainer.errors import BaseModelError, LoraFileError, StorageError
from trainer.home import Home
from trainer.tensorfile import read_header
from trainer.training.events import Fetched
from trainer.training.loop import train

ROOT = Path(__file__).resolve().parents[2]
Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="session")
def repository(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A base as repositories have it: float16 beside float32, and forms of other libraries."""
    folder = save_base(tmp_path_factory.mktemp("repository") / "base")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        (whole,) = (folder / part).glob("*.safetensors")
        halves = {name: tensor.half() for name, tensor in load_file(whole).items()}
        save_file(halves, whole.with_suffix(".fp16.safetensors"))
        (folder / part / "openvino_model.bin").write_bytes(b"openvino")
        (folder / part / "model.onnx").write_bytes(b"onnx")
        (folder / part / "pytorch_model.bin").write_bytes(b"PK a pickle")
    (folder / "README.md").write_text("a model card", encoding="utf-8")
    (folder / "base_1.0.safetensors").write_bytes(b"the same again, as a single file")
    (folder / "vae_1_0").mkdir()
    (folder / "vae_1_0" / "diffusion_pytorch_model.safetensors").write_bytes(b"another VAE")
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def server(repository: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A Hub on this machine that knows `owner/base`, and an empty cache."""
    with serving(FakeHub({"owner/base": repository}), tmp_path / "cache", monkeypatch) as fake:
        yield fake


WEIGHTS = {
    "unet/diffusion_pytorch_model.fp16.safetensors", "vae/diffusion_pytorch_model.fp16.safetensors",
    "text_encoder/model.fp16.safetensors", "text_encoder_2/model.fp16.safetensors",
}  # fmt: skip


def test_only_what_a_base_is_loaded_from_is_asked_for(server: FakeHub, repository: dict[str, bytes]) -> None:
    folder = fetch("owner/base")
    brought = [name for name, _ in server.brought()]
    configs = {name for name in repository if name.endswith((".json", ".txt"))}
    assert set(brought) == WEIGHTS | configs
    assert len(brought) == len(set(brought))
    for name in WEIGHTS | configs:
        assert (folder / name).read_bytes() == repository[name]


def test_where_there_is_no_float16_the_others_are_taken(server: FakeHub, repository: dict[str, bytes]) -> None:
    server.repos["owner/base"] = {name: content for name, content in repository.items() if ".fp16." not in name}
    fetch("owner/base")
    assert {name for name, _ in server.brought() if "safetensors" in name} == {name.replace(".fp16", "") for name in WEIGHTS}


def test_shards_come_with_their_index(server: FakeHub, repository: dict[str, bytes]) -> None:
    start = "unet/diffusion_pytorch_model"
    shards = {f"{start}-{number:05d}-of-00002.safetensors": b"shard %d" % number for number in (1, 2)}
    rest = {name: content for name, content in repository.items() if not re.match(r"unet/.*safetensors$", name)}
    server.repos["owner/base"] = {**rest, **shards, f"{start}.safetensors.index.json": b"{}"}
    fetch("owner/base")
    assert {name for name, _ in server.brought() if start in name} == {*shards, f"{start}.safetensors.index.json"}


def test_progress_is_told_in_bytes(server: FakeHub, repository: dict[str, bytes]) -> None:
    told: list[tuple[int, int]] = []
    fetch("owner/base", lambda done, total: told.append((done, total)))
    size = sum(len(repository[name]) for name in {name for name, _ in server.brought()})
    assert {total for _, total in told} == {size}
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[0][0] == 0
    assert told[-1][0] == size


def test_a_broken_connection_is_taken_up_again_by_itself(server: FakeHub, repository: dict[str, bytes]) -> None:
    server.cut = [5_000, 3_000]
    folder = fetch("owner/base")
    spans = [span for name, span in server.brought() if name == "unet/diffusion_pytorch_model.fp16.safetensors"]
    assert spans == ["bytes=0-", "bytes=5000-", "bytes=8000-"]
    name = "unet/diffusion_pytorch_model.fp16.safetensors"
    assert (folder / name).read_bytes() == repository[name]


def test_a_download_that_failed_goes_on_where_it_was(
    server: FakeHub, repository: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "TRIES", 1)
    server.cut = [7_000]
    with pytest.raises(BaseModelError, match=r"owner/base is not on this machine.*cannot be reached.*goes on from there"):
        fetch("owner/base")
    assert cached("owner/base") is None
    server.asked.clear()
    told: list[int] = []
    folder = fetch("owner/base", lambda done, total: told.append(done))
    name = "unet/diffusion_pytorch_model.fp16.safetensors"
    assert server.brought()[0] == (name, "bytes=7000-")
    assert (folder / name).read_bytes() == repository[name]
    assert not list(remote.storage("owner/base").rglob("*part*"))


def test_large_files_come_from_another_server_that_is_not_given_the_token(
    server: FakeHub, repository: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    server.store = constants.ENDPOINT.replace("127.0.0.1", "localhost")
    server.cut = [0, 5_000]  # the redirection, then the file
    name = "unet/diffusion_pytorch_model.fp16.safetensors"
    assert (fetch("owner/base") / name).read_bytes() == repository[name]
    assert [span for asked, span in server.brought() if asked == name] == ["bytes=0-"] * 2 + ["bytes=5000-"] * 2
    assert server.tokens == {"127.0.0.1": "Bearer hf_secret", "localhost": ""}


def test_a_server_without_ranges_sends_the_file_again(server: FakeHub, repository: dict[str, bytes]) -> None:
    server.cut, server.ranges = [5_000], False
    name = "unet/diffusion_pytorch_model.fp16.safetensors"
    assert (fetch("owner/base") / name).read_bytes() == repository[name]


def test_a_part_that_was_spoilt_on_the_disk_is_not_built_upon(server: FakeHub, repository: dict[str, bytes]) -> None:
    name = "unet/diffusion_pytorch_model.fp16.safetensors"
    part = remote.storage("owner/base") / "blobs" / f"{hashlib.sha256(repository[name]).hexdigest()}.impasto-part"
    part.parent.mkdir(parents=True)
    part.write_bytes(bytes(6_000))  # as a file system leaves it after a power cut
    with pytest.raises(BaseModelError, match="arrived damaged"):
        fetch("owner/base")
    assert (fetch("owner/base") / name).read_bytes() == repository[name]


def test_a_login_page_is_not_taken_for_a_model(
    server: FakeHub, repository: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def page(self: Handler, content: bytes) -> None:
        shown = b"<html>Welcome to our network" if self.path.endswith(".safetensors") else content
        self.answer(200, shown, {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(content).hexdigest()}"'})

    monkeypatch.setattr(Handler, "send_file", page)
    with pytest.raises(BaseModelError, match="a proxy or a login page may be in between"):
        fetch("owner/base")


def test_a_process_that_is_killed_has_not_downloaded_in_vain(server: FakeHub, tmp_path: Path) -> None:
    server.hold = 9_000
    told = "import sys; from trainer.bases.hub import fetch; print(fetch('owner/base'))"
    environment = {**os.environ, "HF_ENDPOINT": constants.ENDPOINT, "HF_HUB_CACHE": str(tmp_path / "cache")}
    environment |= {"HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    child = subprocess.Popen([sys.executable, "-c", told], cwd=ROOT, env=environment)
    part = None
    deadline = time.monotonic() + 60
    while not part and time.monotonic() < deadline:
        part = next((path for path in tmp_path.rglob("*.impasto-part") if path.stat().st_size >= 9_000), None)
        time.sleep(0.05)
    child.kill()
    child.wait()
    assert part
    server.hold = 0
    server.going_down.set()
    server.asked.clear()
    done = subprocess.run([sys.executable, "-c", told], cwd=ROOT, env=environment, capture_output=True, text=True, check=True)
    assert server.brought()[0] == ("unet/diffusion_pytorch_model.fp16.safetensors", "bytes=9000-")
    assert Path(done.stdout.strip()) == cached("owner/base")


def test_a_full_disk_is_told_of_before_the_weights_come(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, 2**29))
    with pytest.raises(StorageError, match=r"needs 1\.0 GiB on the disk of .*cache, and 0\.5 GiB are free.*HF_HOME"):
        fetch("owner/base")
    assert not [name for name, _ in server.brought() if "safetensors" in name]


def test_what_is_there_already_needs_no_room(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TRIES", 1)
    server.cut = [len(server.repos["owner/base"]["unet/diffusion_pytorch_model.fp16.safetensors"]) - 100]
    with pytest.raises(BaseModelError):
        fetch("owner/base")
    rest = sum(len(server.repos["owner/base"][name]) for name in WEIGHTS if "unet" not in name) + 100
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, remote.MARGIN + rest + 100))
    fetch("owner/base")


def test_a_whole_base_asks_no_server(server: FakeHub) -> None:
    folder = fetch("owner/base")
    server.asked.clear()
    server.broken = 500
    assert fetch("owner/base") == cached("owner/base") == folder
    assert not server.asked


def test_a_whole_base_works_offline_and_a_part_of_one_says_so(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = fetch("owner/base")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch("owner/base") == folder
    (folder / "vae" / "diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(BaseModelError, match="owner/base is not on this machine, or not all of it, and HF_HUB_OFFLINE is set"):
        fetch("owner/base")


def test_what_another_program_has_downloaded_is_used(server: FakeHub, repository: dict[str, bytes]) -> None:
    from huggingface_hub import snapshot_download

    ours = remote.storage("owner/base")
    for name, content in repository.items():  # a cache as huggingface_hub leaves it where there are no links
        path = ours / "snapshots" / COMMIT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    (ours / "refs").mkdir()
    (ours / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    assert str(fetch("owner/base")) == snapshot_download("owner/base", local_files_only=True)
    assert not server.asked


def test_without_links_the_cache_holds_the_files_themselves(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: object, target_is_directory: bool = False) -> None:
        raise OSError("A required privilege is not held by the client")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    folder = fetch("owner/base")
    assert not any((folder / name).is_symlink() for name in WEIGHTS)
    assert cached("owner/base") == folder


@pytest.mark.parametrize(
    ("changed", "sentence"),
    [
        ({"unet": {"in_channels": 9}}, "is an SDXL inpainting model"),
        ({"unet": {"addition_embed_type": None}, "index": {"_class_name": "StableDiffusionPipeline"}},
         "is not SDXL but a model for StableDiffusionPipeline"),
        ({"index": {"text_encoder": [None, None]}}, "is the SDXL refiner"),
    ],
)  # fmt: skip
def test_another_kind_of_model_is_refused_by_name_before_its_weights(
    server: FakeHub, repository: dict[str, bytes], changed: dict[str, dict[str, object]], sentence: str
) -> None:
    files = {"unet": "unet/config.json", "index": "model_index.json"}
    edited = {
        files[part]: json.dumps({**json.loads(repository[files[part]]), **values}).encode() for part, values in changed.items()
    }
    server.repos["owner/base"] = {**repository, **edited}
    with pytest.raises(BaseModelError, match=f"owner/base on the Hub {sentence}"):
        fetch("owner/base")
    assert not [name for name, _ in server.brought() if "safetensors" in name]


def test_a_model_without_a_unet_is_refused(server: FakeHub) -> None:
    server.repos["owner/flux"] = {"model_index.json": b'{"_class_name": "FluxPipeline"}', "transformer/config.json": b"{}"}
    with pytest.raises(BaseModelError, match="owner/flux on the Hub is not SDXL but a model for FluxPipeline"):
        fetch("owner/flux")


def test_a_base_that_has_only_pickles_is_refused(server: FakeHub, repository: dict[str, bytes]) -> None:
    server.repos["owner/base"] = {
        name: content for name, content in repository.items() if not re.match(r"vae/.*safetensors$", name)
    }
    with pytest.raises(BaseModelError, match=r"it has no vae/diffusion_pytorch_model\.safetensors"):
        fetch("owner/base")


def single_file(**more: torch.Tensor) -> bytes:
    """As few tensors as make the header of an SDXL checkpoint."""
    names = {
        "model.diffusion_model.input_blocks.0.0.weight": (8, 4, 3, 3), "model.diffusion_model.label_emb.0.0.weight": (8, 8),
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight": (8,),
        "conditioner.embedders.1.model.ln_final.weight": (8,), "first_stage_model.quant_conv.weight": (8, 8, 1, 1),
    }  # fmt: skip
    padding = {"model.diffusion_model.out.2.bias": torch.zeros(20_000)}
    return save({**{name: torch.zeros(shape) for name, shape in names.items()}, **padding, **more})


def test_a_repository_of_one_checkpoint_gives_that_file(server: FakeHub) -> None:
    server.repos["owner/single"] = {"style.safetensors": single_file(), "README.md": b"", ".gitattributes": b""}
    file = fetch("owner/single")
    assert (file.name, file.read_bytes()) == ("style.safetensors", single_file())
    assert {name for name, _ in server.brought()} == {"style.safetensors"}
    server.asked.clear()
    assert fetch("owner/single") == fetch("owner/single/style.safetensors") == file
    assert not server.asked


def test_a_lora_that_came_earlier_is_not_taken_for_the_base_beside_it(server: FakeHub, repository: dict[str, bytes]) -> None:
    snapshot = remote.storage("owner/base") / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (snapshot / "offset-lora.safetensors").write_bytes(save({"lora_unet_x.lora_down.weight": torch.zeros(2, 2)}))
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    assert cached("owner/base") is None
    assert (fetch("owner/base") / "model_index.json").is_file()


def test_of_several_checkpoints_one_must_be_named(server: FakeHub) -> None:
    server.repos["owner/many"] = {"a.safetensors": single_file(), "b.safetensors": single_file()}
    with pytest.raises(BaseModelError, match=r"several models: a\.safetensors \(0\.0 GiB\), b\.safetensors.*owner/many/a\.saf"):
        fetch("owner/many")
    assert fetch("owner/many/b.safetensors").name == "b.safetensors"
    with pytest.raises(BaseModelError, match=r"has no file c\.safetensors. Its .safetensors files: a\.safetensors, b\.saf"):
        fetch("owner/many/c.safetensors")


def test_a_checkpoint_of_another_kind_is_refused_from_its_header(server: FakeHub) -> None:
    lora = save({"lora_unet_x.lora_down.weight": torch.zeros(64, 64), "lora_unet_x.lora_up.weight": torch.zeros(64, 64)})
    server.repos["owner/lora"] = {"style.safetensors": lora}
    with pytest.raises(BaseModelError, match=r"owner/lora/style\.safetensors on the Hub is a LoRA, not an SDXL base"):
        fetch("owner/lora")
    assert all(span == "bytes=0-100000" for _, span in server.brought())


def test_a_repository_with_nothing_to_load_says_so(server: FakeHub) -> None:
    server.repos["owner/old"] = {"model.ckpt": b"PK"}
    with pytest.raises(BaseModelError, match="holds neither a diffusers folder nor"):
        fetch("owner/old")


def test_refusals_of_the_hub_are_sentences(server: FakeHub, repository: dict[str, bytes]) -> None:
    with pytest.raises(BaseModelError, match="There is no owner/nothing on the Hugging Face Hub, or it is private"):
        fetch("owner/nothing")
    server.repos["owner/gated"], server.gated = repository, {"owner/gated"}
    with pytest.raises(BaseModelError, match=r"owner/gated is gated: open https://huggingface\.co/owner/gated, agree"):
        fetch("owner/gated")
    server.broken = 503
    with pytest.raises(BaseModelError, match=r"refused owner/base \(HTTP 503\): try again later"):
        fetch("owner/base")


def test_without_a_network_a_base_that_is_not_here_says_so(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    with pytest.raises(BaseModelError, match=r"owner/base is not on this machine.*cannot be reached"):
        fetch("owner/base")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        ("owner/name", True), ("owner/name.v1", True), ("owner/name/file.safetensors", True),
        ("owner/name/sub/file.safetensors", True), ("name", False), ("owner/name/sub", False), ("/owner/name", False),
        ("owner/na me", False), ("../name/x", False), ("./models/a.safetensors", False), ("../models/a.safetensors", False),
    ],
)  # fmt: skip
def test_what_reads_as_a_hub_id(text: str, is_one: bool) -> None:
    assert is_hub_source(text) is is_one
    if not is_one:
        with pytest.raises(BaseModelError, match="is no Hub id"):
            fetch(text)


def test_a_base_from_the_hub_draws_and_its_bytes_are_told_of(
    server: FakeHub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "a.png"
    draw = ["generate", "a cat", "--base", "owner/base", "--steps", "1", "--size", "64x64", "--out", str(out)]
    assert cli.main(draw) == 0
    assert out.is_file()
    assert re.search(r"downloading: 100%.*B/s", capsys.readouterr().err)
    server.broken = 500
    assert cli.main(draw) == 0
    assert "downloading" not in capsys.readouterr().err


def test_a_training_tells_how_much_of_its_base_has_come(server: FakeHub, tmp_path: Path, dataset: Path, home: Home) -> None:
    run = short_run(tmp_path / "run", dataset, Path("owner/base"), steps=1)
    told = [event for event in train(run, home) if isinstance(event, Fetched)]
    size = sum(len(server.repos["owner/base"][name]) for name in {name for name, _ in server.brought()})
    assert told[0].done < size
    assert (told[-1].done, told[-1].total) == (size, size)
    assert read_header(run.lora, LoraFileError).metadata["ss_sd_model_name"] == "owner/base"
    again = short_run(tmp_path / "again", dataset, Path("owner/base"), steps=1)
    assert not [event for event in train(again, home) if isinstance(event, Fetched)]
