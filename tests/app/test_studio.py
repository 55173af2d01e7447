from collections.abc import Iterator
from io import BytesIO
from itertools import pairwise
from typing import Any

import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from app import studio
from app.desk import Desk
from app.server import OwnPageOnly
from trainer.data import captions, crops
from trainer.data.dataset import Dataset
from trainer.data.editing.edits import Edits
from trainer.errors import DatasetError
from trainer.home import shipped
from trainer.settings import Settings

STRIPES = "/studio/datasets/stripes"


@pytest.fixture
def client(desk: Desk) -> Iterator[TestClient]:
    app = FastAPI(openapi_url=None)
    app.add_middleware(OwnPageOnly)
    studio.add(app, desk)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def says(desk: Desk) -> list[str]:
    return [picture.caption for picture in desk.dataset("stripes").pictures]


def files(desk: Desk) -> dict[str, bytes]:
    """All that the home holds, but for locks."""
    found = (path for path in desk.home.root.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path): path.read_bytes() for path in found}


def listed(client: TestClient, states: dict[str, str] | None = None) -> Any:
    return client.post(f"{STRIPES}/pictures", json={"states": states or {}}).json()


def write(client: TestClient, name: str, was: list[str], text: str) -> Any:
    return client.put(f"{STRIPES}/pictures/{name}/caption", json={"was": was, "text": text})


def test_a_caption_replaces_only_what_it_was_meant_to(client: TestClient, desk: Desk) -> None:
    written = write(client, "02.png", ["a picture"], " two stripes\n of paint ")
    assert (written.status_code, written.json()["caption"]) == (200, "two stripes of paint")
    assert says(desk) == ["a picture", "two stripes of paint", "a picture"]
    conflict = write(client, "02.png", ["a picture"], "mine")
    assert (conflict.status_code, conflict.json()["current"]) == (409, "two stripes of paint")
    assert says(desk)[1] == "two stripes of paint"
    assert write(client, "02.png", ["never written", "two stripes of paint"], "mine").status_code == 200
    assert says(desk)[1] == "mine"


@pytest.mark.parametrize("name", ["..%2F..%2Fsecret.png", "gone.png", "%2E%2E", "dataset.toml", "01.txt", "empty"])
def test_nothing_but_pictures_of_the_dataset_is_written_or_shown(client: TestClient, desk: Desk, name: str) -> None:
    Image.new("RGB", (64, 64)).save(desk.home.root / "secret.png")
    before = files(desk)
    for answer in (
        write(client, name, [""], "x"),
        client.get(f"{STRIPES}/pictures/{name}/copy"),
        client.get(f"{STRIPES}/pictures/{name}/crop"),
    ):
        assert answer.status_code in (404, 422), answer.text
    assert files(desk) == before


@pytest.mark.parametrize("name", ["../stripes/01.png", "./01.png", ""])
def test_a_name_never_leads_through_folders(desk: Desk, name: str) -> None:
    with pytest.raises(DatasetError, match="not in the dataset"):
        studio.Studio(desk).copy("stripes", name)


@pytest.mark.parametrize("dataset", ["gone", "..", "%2E%2E", "stripes%2F..", ".hidden"])
def test_a_dataset_is_one_of_those_there_are(client: TestClient, dataset: str) -> None:
    answer = client.post(f"/studio/datasets/{dataset}/pictures", json={})
    assert answer.status_code in (404, 422)


@pytest.mark.parametrize("headers", [{"origin": "http://evil.com"}, {"sec-fetch-site": "cross-site"}])
def test_another_site_can_neither_read_nor_write(client: TestClient, desk: Desk, headers: dict[str, str]) -> None:
    body = {"was": ["a picture"], "text": "stolen"}
    assert client.put(f"{STRIPES}/pictures/01.png/caption", json=body, headers=headers).status_code == 403
    assert client.post(f"{STRIPES}/pictures", json={}, headers=headers).status_code == 403
    assert client.get(f"{STRIPES}/pictures/01.png/copy", headers=headers).status_code == 403
    assert says(desk)[0] == "a picture"


def test_small_copies_may_be_kept_for_ever_since_their_address_changes(client: TestClient, desk: Desk) -> None:
    first = listed(client)["changed"][0]
    copy = client.get(f"{STRIPES}/pictures/01.png/copy?side=256&look={first['look']}")
    assert copy.headers["content-type"] == "image/webp"
    assert "immutable" in copy.headers["cache-control"]
    with Image.open(BytesIO(copy.content)) as picture:
        assert picture.size == (64, 64)
    Image.new("RGB", (80, 64), (1, 2, 3)).save(desk.home.datasets / "stripes" / "01.png")
    changed = listed(client, {first["name"]: first["state"]})["changed"]
    assert next(entry for entry in changed if entry["name"] == "01.png")["look"] != first["look"]


def test_scripts_are_served_as_such_and_no_other_file_is(client: TestClient) -> None:
    there = sorted(path.name for path in shipped("assets", "page", "studio").glob("*.js"))
    assert "studio.js" in there
    for name in there:
        answer = client.get(f"/studio/page/{name}")
        assert answer.headers["content-type"].startswith("text/javascript")
    for name in ("page.js", "..%2Fpage.js", "style.css", "%2E%2E"):
        assert client.get(f"/studio/page/{name}").status_code in (404, 422)


def test_what_was_changed_elsewhere_is_told_once(client: TestClient, desk: Desk) -> None:
    told = listed(client)
    states = {entry["name"]: entry["state"] for entry in told["changed"]}
    assert client.get(f"{STRIPES}/version").json() == told["version"]
    captions.write(desk.home.datasets / "stripes" / "03.txt", "from another program")
    assert client.get(f"{STRIPES}/version").json() != told["version"]
    assert [entry["caption"] for entry in listed(client, states)["changed"]] == ["from another program"]


def test_pictures_are_removed_and_brought_back(client: TestClient, desk: Desk) -> None:
    client.post(f"{STRIPES}/remove", json={"names": ["01.png", "03.png"]})
    assert [picture.path.name for picture in desk.dataset("stripes").pictures] == ["02.png"]
    assert "2 pictures" in listed(client)["undo"]
    assert sorted(client.post(f"{STRIPES}/undo").json()["names"]) == ["01.png", "03.png"]
    assert says(desk) == ["a picture"] * 3
    assert client.post(f"{STRIPES}/undo").json() is None


def test_what_was_typed_at_one_visit_is_undone_as_one(client: TestClient, desk: Desk) -> None:
    texts = ["a picture", "a p", "a pear", "a pear tree"]
    for was, text in pairwise(texts):
        write(client, "01.png", [was], text)
    undone = client.post(f"{STRIPES}/undo", json={"name": "01.png", "was": "a p"}).json()
    assert (says(desk)[0], undone["names"]) == ("a p", ["01.png"])
    client.post(f"{STRIPES}/undo", json={"name": "02.png", "was": "never"})
    assert says(desk)[0] == "a picture"
    write(client, "02.png", ["a picture"], "a plum")
    write(client, "01.png", ["a picture"], "a cherry")
    client.post(f"{STRIPES}/undo", json={"name": "01.png", "was": "never"})
    assert says(desk) == ["a picture", "a plum", "a picture"]


def test_an_edit_of_many_captions_is_shown_made_and_undone(client: TestClient, desk: Desk) -> None:
    write(client, "03.png", ["a picture"], "a drawing, b")
    edit = {"kind": "replace", "text": "picture", "by": "print", "names": ["01.png", "03.png", "gone.png"]}
    shown = client.post(f"{STRIPES}/bulk", json=edit).json()
    assert shown["changes"] == [{"name": "01.png", "before": "a picture", "after": "a print"}]
    assert says(desk)[0] == "a picture"
    client.post(f"{STRIPES}/bulk", json={**edit, "apply": True})
    assert says(desk) == ["a print", "a picture", "a drawing, b"]
    client.post(f"{STRIPES}/undo")
    assert says(desk) == ["a picture", "a picture", "a drawing, b"]


@pytest.mark.parametrize(
    ("edit", "caption"),
    [
        ({"kind": "before", "text": "oil"}, "oil, sea, vellorn, boat"),
        ({"kind": "after", "text": "oil"}, "sea, vellorn, boat, oil"),
        ({"kind": "remove", "text": "Sea"}, "vellorn, boat"),
        ({"kind": "sort"}, "vellorn, boat, sea"),
    ],
)
def test_each_kind_of_edit(client: TestClient, desk: Desk, edit: dict[str, str], caption: str) -> None:
    Edits(desk.home.datasets / "stripes").trigger("", "vellorn")
    write(client, "01.png", ["a picture"], "sea, vellorn, boat")
    client.post(f"{STRIPES}/bulk", json={**edit, "names": ["01.png"], "apply": True})
    assert says(desk) == [caption, "a picture", "a picture"]


def test_tags_are_counted_and_found(client: TestClient) -> None:
    write(client, "01.png", ["a picture"], "Sea, boat")
    write(client, "02.png", ["a picture"], "boat, house")
    assert client.get(f"{STRIPES}/tags").json()[0] == ["boat", 2]
    assert client.get(f"{STRIPES}/tagged", params={"tag": "sea"}).json() == ["01.png"]


def test_what_training_sees_is_what_the_engine_says(client: TestClient, desk: Desk) -> None:
    Image.new("RGB", (1600, 400)).save(desk.home.datasets / "stripes" / "02.png")
    place = f"{STRIPES}/pictures/02.png/crop"

    def engine() -> Any:
        dataset = desk.dataset("stripes")
        return pytest.approx(crops.box(crops.seen(dataset.pictures[1], Settings(), dataset)))

    assert client.get(place).json()["box"] == engine()
    assert client.put(place, json={"focus": [0.9, 0.5]}).status_code == 200
    moved = client.get(place).json()
    assert moved["box"] == engine()
    assert (moved["box"][2], moved["focus"]) == (pytest.approx(1), [0.9, 0.5])
    client.put(place, json={"crop": [0, 0, 0.5, 1]})
    assert client.get(place).json()["crop"] == [0, 0, 0.5, 1]
    assert client.get(place).json()["box"] == engine()
    client.put(place, json={"focus": "content"})
    assert Dataset.open(desk.home.datasets / "stripes").focus["02.png"] == (0.5, 0.5)
    client.put(place, json={"crop": None, "focus": None})
    assert client.get(place).json()["crop"] is None
    assert client.put(place, json={"crop": [0.5, 0, 0.2, 1]}).status_code == 422
    assert client.get(f"{place}?resolution=512").json()["bucket"] != moved["bucket"]


def test_how_training_may_vary_a_caption(client: TestClient, desk: Desk) -> None:
    Edits(desk.home.datasets / "stripes").trigger("", "vellorn")
    plain = {"name": "01.png", "text": "a, b, c, d"}
    assert client.post(f"{STRIPES}/variants", json=plain).json() == ["vellorn, a, b, c, d"]
    shuffled = client.post(f"{STRIPES}/variants", json={**plain, "shuffle_tags": True, "keep_tags": 1}).json()
    assert len(set(shuffled)) > 1
    assert all(text.startswith("vellorn, a, ") and len(text) == 19 for text in shuffled)
    wrong = client.post(f"{STRIPES}/variants", json={**plain, "tag_dropout": 2})
    assert wrong.status_code == 422
    assert "tag_dropout" in wrong.json()["message"]
