import io
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from app import studio, workbench
from app.desk import Desk
from app.server import OwnPageOnly
from tests.app.conftest import save_pictures
from trainer.data.dataset import Dataset
from trainer.data.editing.edits import Edits

STRIPES = "/studio/datasets/stripes"


@pytest.fixture
def client(desk: Desk) -> Iterator[TestClient]:
    app = FastAPI(openapi_url=None)
    app.add_middleware(OwnPageOnly)
    studio.add(app, desk)
    workbench.add(app, desk)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def work(client: TestClient, dataset: str = "stripes", over: Callable[[Any], bool] = lambda told: True) -> Any:
    """How things are, once that is so and nothing is under way."""
    until = time.monotonic() + 20
    while True:
        told = client.post(f"/studio/datasets/{dataset}/work", json={}).json()
        if not told["report"]["busy"] and not (told["adding"] or {}).get("busy") and over(told):
            return told
        assert time.monotonic() < until, told
        time.sleep(0.02)


def send(client: TestClient, files: dict[str, bytes], **dropped: str) -> Any:
    """What is answered where these files, by their paths, are dropped."""
    parcel = client.post("/studio/parcels").json()
    for path, content in files.items():
        assert client.put(f"/studio/parcels/{parcel}/file", params={"path": path}, content=content).status_code == 200
    return client.post(f"/studio/parcels/{parcel}/add", json=dropped)


def test_what_is_dropped_begins_a_dataset_and_is_told_later(client: TestClient, desk: Desk, tmp_path: Path) -> None:
    one, two = (path.read_bytes() for path in save_pictures(tmp_path / "from", 2))
    files = {"set/2_x/a #1.png": one, "set/2_x/a #1.txt": b"a boat", "set/b.png": two, "set/no.jpg": b"no picture"}
    made = send(client, files).json()
    assert made == "my-style"
    told = work(client, made)
    assert (told["adding"]["added"], len(told["adding"]["refused"]), told["pictures"]) == (2, 1, 2)
    dataset = desk.dataset(made)
    assert [picture.caption for picture in dataset.pictures] == ["a boat", ""]
    assert list(dataset.repeats.values()) == [2]
    assert not any((desk.home.cache / "dropped").iterdir())
    assert work(client, made)["adding"] == told["adding"], "told again, as after a reload of the page"
    client.post(f"/studio/datasets/{made}/seen")
    assert work(client, made)["adding"] is None
    assert send(client, {"c.png": one}).json() == "my-style-2"


def test_what_is_see_through_is_laid_on_the_chosen_colour(client: TestClient, desk: Desk) -> None:
    glass, content = Image.new("RGBA", (64, 64), (255, 0, 0, 0)), io.BytesIO()
    glass.paste((0, 0, 255, 255), (32, 0, 64, 64))
    glass.save(content, "PNG")
    send(client, {"glass.png": content.getvalue()}, dataset="empty", background="black")
    told = work(client, "empty", lambda told: told["pictures"] == 1)
    assert "glass.png" in told["adding"]["changed"][0]
    with Image.open(desk.dataset("empty").pictures[0].path) as made:
        assert [made.convert("RGB").getpixel((x, 9)) for x in (9, 50)] == [(0, 0, 0), (0, 0, 255)]
    assert send(client, {"a.png": b"x"}, dataset="empty", background="red").status_code == 422


def test_a_dataset_comes_back_from_its_zip(client: TestClient, desk: Desk) -> None:
    Edits(desk.dataset("stripes").folder).trigger("", "vellorn")
    packed = client.get(f"{STRIPES}/zip")
    assert 'filename="stripes.zip"' in packed.headers["content-disposition"]
    with zipfile.ZipFile(io.BytesIO(packed.content)) as opened:
        assert "01.png" in opened.namelist()
    made = send(client, {"stripes.zip": packed.content}).json()
    work(client, made, lambda told: told["pictures"] == 3)
    before, after = desk.dataset("stripes"), desk.dataset(made)
    assert [each.path.read_bytes() for each in before.pictures] == [each.path.read_bytes() for each in after.pictures]
    assert [each.caption for each in before.pictures] == [each.caption for each in after.pictures]
    assert after.trigger == "vellorn"
    assert not any((desk.home.cache / "dropped").iterdir())


def test_a_file_that_is_too_large_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workbench, "LARGEST", 10)
    parcel = client.post("/studio/parcels").json()
    answer = client.put(f"/studio/parcels/{parcel}/file", params={"path": "a.zip"}, content=b"x" * 11)
    assert answer.status_code == 422
    assert "a.zip is larger" in answer.json()["message"]
    client.delete(f"/studio/parcels/{parcel}")
    assert client.put(f"/studio/parcels/{parcel}/file", params={"path": "a"}, content=b"x").status_code == 422


def test_the_trigger_word_replaces_only_what_it_was_meant_to(client: TestClient, desk: Desk) -> None:
    def put(was: list[str], text: str) -> Any:
        return client.put(f"{STRIPES}/trigger", json={"was": was, "text": text})

    assert put([""], " vel\nlorn ").json() == {"caption": "vel lorn"}
    conflict = put([""], "mine")
    assert (conflict.status_code, conflict.json()["current"]) == (409, "vel lorn")
    assert desk.dataset("stripes").trigger == "vel lorn"
    assert put(["", "vel lorn"], "mine").status_code == 200
    assert work(client)["trigger"] == desk.dataset("stripes").trigger == "mine"


def test_findings_are_told_mended_and_taken_back(client: TestClient, desk: Desk) -> None:
    folder = desk.dataset("stripes").folder
    (folder / "02.png").rename(folder / "red-house.png")
    (folder / "02.txt").unlink()
    report = work(client)["report"]
    bare = next(finding for finding in report["findings"] if finding["kind"] == "bare")
    assert (bare["names"], bool(bare["mend"])) == (["red-house.png"], True)
    assert client.post(f"{STRIPES}/mend", json={"kind": "bare", "names": ["red-house.png"]}).status_code == 200
    assert desk.picture("stripes", "red-house.png").caption == "red house"
    kinds = [finding["kind"] for finding in work(client)["report"]["findings"]]
    assert "bare" not in kinds
    assert client.post(f"{STRIPES}/undo").json()["names"] == ["red-house.png"]
    assert desk.picture("stripes", "red-house.png").caption == ""
    assert client.post(f"{STRIPES}/mend", json={"kind": "few", "names": []}).status_code == 422


def test_the_summary_holds_for_the_settings_that_are_given(client: TestClient) -> None:
    def summary(**settings: object) -> str:
        until = time.monotonic() + 20
        while time.monotonic() < until:
            told = client.post(f"{STRIPES}/work", json={"settings": settings}).json()["report"]
            if not told["busy"]:
                return str(told["summary"])
            time.sleep(0.02)
        raise AssertionError("waited in vain")

    small = summary(resolution=128, steps=30, batch=1)
    assert small == "With the settings under Train: 3 at 128 × 128. 30 steps show each picture about 10 times."
    assert "3 at 256 × 256. 60 steps" in summary(resolution=256, steps=60, batch=1, max_upscale=4)


@pytest.mark.parametrize("dataset", ["gone", "..", "%2e%2e", ".impasto"])
def test_only_datasets_that_are_there_are_touched(client: TestClient, desk: Desk, dataset: str) -> None:
    before = sorted(desk.home.root.rglob("*"))
    for path, body in (("work", {}), ("stop", {}), ("seen", {}), ("mend", {"kind": "bare", "names": []})):
        assert client.post(f"/studio/datasets/{dataset}/{path}", json=body).status_code in (404, 405, 422)
    assert client.put(f"/studio/datasets/{dataset}/trigger", json={"was": [""], "text": "x"}).status_code in (404, 405, 422)
    assert client.get(f"/studio/datasets/{dataset}/zip").status_code in (404, 405, 422)
    assert send(client, {}, dataset=dataset).status_code == 422
    after = [path for path in sorted(desk.home.root.rglob("*")) if "cache" not in path.parts]
    assert after == [path for path in before if "cache" not in path.parts]


def test_another_sites_page_can_do_none_of_it(client: TestClient, desk: Desk) -> None:
    foreign = {"origin": "http://evil.com"}
    assert client.post("/studio/parcels", headers=foreign).status_code == 403
    assert client.put(f"{STRIPES}/trigger", json={"was": [""], "text": "x"}, headers=foreign).status_code == 403
    assert client.get(f"{STRIPES}/zip", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert Dataset(desk.home.datasets / "stripes", (), ()).trigger == ""
