"""Where a model lies: told from its files, brought from a server that answers as the Hub does."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import constants

from tests.captioners import save_blip, save_tagger
from tests.fake_hub import COMMIT, FakeHub, serving
from trainer.bases import remote
from trainer.captioning import place
from trainer.captioning.models import MODELS, Model, chosen
from trainer.captioning.place import again, fetching, kind_at, place_of
from trainer.errors import BaseModelError, CaptionerError, StorageError, UsageError

Usage = namedtuple("Usage", "total used free")


@pytest.fixture(scope="module")
def blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_blip(tmp_path_factory.mktemp("models") / "blip")


@pytest.fixture
def server(blip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    files = {path.name: path.read_bytes() for path in blip.iterdir()}
    files |= {"pytorch_model.bin": b"PK a pickle", "tf_model.h5": b"another form", "README.md": b"a card"}
    with serving(FakeHub({"owner/blip": files}), tmp_path / "cache", monkeypatch) as fake:
        yield fake


BLIP = chosen("owner/blip")


def test_only_what_the_model_is_loaded_from_is_brought(server: FakeHub, blip: Path) -> None:
    told = list(fetching(BLIP))
    brought = [name for name, _ in server.brought()]
    assert set(brought) == {path.name for path in blip.iterdir()}
    assert len(brought) == len(set(brought))
    total = sum(path.stat().st_size for path in blip.iterdir())
    assert (told[0], told[-1]) == ((0, total), (total, total))
    folder = place_of(BLIP)
    assert folder
    assert all((folder / path.name).read_bytes() == path.read_bytes() for path in blip.iterdir())


def test_a_tagger_is_two_files(server: FakeHub, tmp_path: Path) -> None:
    folder = save_tagger(tmp_path / "tagger", 32)
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    server.repos["owner/tagger"] = {**files, "model.safetensors": b"for timm", "config.json": b'{"architecture": "vit"}'}
    list(fetching(chosen("owner/tagger")))
    assert {name for name, _ in server.brought()} == {"config.json", "model.onnx", "selected_tags.csv"}


def test_a_broken_download_goes_on_where_it_was(server: FakeHub, blip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "TRIES", 1)
    server.cut = [700]
    with pytest.raises(BaseModelError, match=r"owner/blip is not on this machine.*goes on from there"):
        list(fetching(BLIP))
    assert place_of(BLIP) is None
    server.asked.clear()
    list(fetching(BLIP))
    assert ("model.safetensors", "bytes=700-") in server.brought()
    assert place_of(BLIP)


def test_a_whole_model_asks_no_server_and_a_part_of_one_is_not_one(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    list(fetching(BLIP))
    server.asked.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert list(fetching(BLIP)) == []
    assert not server.asked
    folder = place_of(BLIP)
    assert folder
    (folder / "tokenizer.json").unlink()
    assert place_of(BLIP) is None
    with pytest.raises(BaseModelError, match="owner/blip is not on this machine, or not all of it, and HF_HUB_OFFLINE is set"):
        list(fetching(BLIP))


def test_a_full_disk_is_told_of_before_the_weights_come(server: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(2**40, 2**40, 2**29))
    with pytest.raises(StorageError, match=r"owner/blip needs 1\.0 GiB on the disk of .*, and 0\.5 GiB are free"):
        list(fetching(BLIP))
    assert "model.safetensors" not in [name for name, _ in server.brought()]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"model.safetensors": None}, "owner/blip on the Hub has its weights only as pickles, which can run code"),
        ({"model.safetensors": None, "pytorch_model.bin": None}, r"has no model\.safetensors: choose a model that is whole"),
        ({"tokenizer.json": None, "vocab.txt": None}, r"has no tokenizer\.json"),
        ({"config.json": {"auto_map": {"AutoModel": "modeling_florence2.X"}}}, "code of its own, which is not run here"),
        ({"config.json": {"architectures": ["BlipForQuestionAnswering"]}}, "WD taggers but BlipForQuestionAnswering"),
        ({"config.json": {"model_type": "llava", "architectures": None}}, "Florence-2, BLIP and WD taggers but llava"),
        ({"config.json": None}, "owner/blip on the Hub is none of the models that write captions here"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_refused_before_its_weights(
    server: FakeHub, changes: dict[str, dict[str, object] | None], sentence: str
) -> None:
    repo = server.repos["owner/blip"] = dict(server.repos["owner/blip"])
    for name, change in changes.items():
        if change is None:
            repo.pop(name, None)
        else:
            repo[name] = json.dumps({**json.loads(repo[name]), **change}).encode()
    with pytest.raises(CaptionerError, match=sentence):
        list(fetching(BLIP))
    assert not [name for name, _ in server.brought() if name.endswith((".safetensors", ".bin"))]


def test_shards_come_with_their_index(server: FakeHub) -> None:
    repo = dict(server.repos["owner/blip"])
    del repo["model.safetensors"]
    shards = {f"model-{number:05d}-of-00002.safetensors": b"shard %d" % number for number in (1, 2)}
    server.repos["owner/blip"] = {**repo, **shards, "model.safetensors.index.json": b"{}"}
    list(fetching(BLIP))
    assert {name for name, _ in server.brought() if "safetensors" in name} == {*shards, "model.safetensors.index.json"}


def test_a_folder_of_ones_own_needs_no_hub(server: FakeHub, blip: Path, tmp_path: Path) -> None:
    model = chosen(str(blip))
    assert list(fetching(model)) == []
    assert place_of(model) == blip
    assert kind_at(blip) == "blip"
    assert not server.asked
    (tmp_path / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(CaptionerError, match=r"config\.json cannot be read"):
        place_of(chosen(str(tmp_path)))


def test_another_programs_cache_is_used(server: FakeHub, blip: Path) -> None:
    ours = remote.storage("owner/blip")
    shutil.copytree(blip, ours / "snapshots" / COMMIT)
    (ours / "refs").mkdir()
    (ours / "refs" / "main").write_text(COMMIT, encoding="utf-8")
    folder = place_of(BLIP)
    assert folder == ours / "snapshots" / COMMIT
    assert not server.asked
    assert again(folder) == f"delete the folder {ours} and get the model again"


def test_every_model_has_a_name_of_its_own_and_is_found_by_it() -> None:
    assert len({model.name for model in MODELS}) == len(MODELS)
    assert [chosen(model.name) for model in MODELS] == list(MODELS)
    assert [model.name for model in MODELS if not model.source] == ["names"]


def test_what_is_neither_name_nor_folder_nor_hub_id_is_refused() -> None:
    assert chosen("some/captioner") == Model("some/captioner", "some/captioner", None)
    with pytest.raises(UsageError, match="There is no model florence that writes captions: choose one of names, florence-base"):
        chosen("florence")


def test_no_file_of_a_model_is_asked_for_that_could_run_code() -> None:
    assert not [name for name in place._SMALL if not name.endswith((".json", ".txt"))]
