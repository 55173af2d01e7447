import io
from collections.abc import Iterator

import numpy as np
import pytest
from fastapi import FastAPI
from PIL import Image
from starlette.testclient import TestClient

from app import painting, studio
from app.desk import Desk
from app.server import OwnPageOnly
from trainer.data import masks
from trainer.data.editing.edits import Edits

WIDE = "/studio/datasets/stripes/pictures/wide.png/mask"


@pytest.fixture
def client(desk: Desk) -> Iterator[TestClient]:
    Image.new("RGB", (1600, 800), (20, 90, 120)).save(desk.home.datasets / "stripes" / "wide.png")
    app = FastAPI(openapi_url=None)
    app.add_middleware(OwnPageOnly)
    studio.add(app, desk)
    painting.add(app, desk)
    with TestClient(app, base_url="http://127.0.0.1:7860") as client:
        yield client


def png(picture: Image.Image, form: str = "PNG") -> bytes:
    content = io.BytesIO()
    picture.save(content, form)
    return content.getvalue()


def painted(size: tuple[int, int] = (768, 384)) -> Image.Image:
    """The left half is painted."""
    picture = Image.new("RGBA", size, (0, 0, 0, 0))
    picture.paste((233, 181, 85, 255), (0, 0, size[0] // 2, size[1]))
    return picture


def test_what_is_painted_is_the_mask_and_comes_back_as_paint(client: TestClient, desk: Desk) -> None:
    picture = desk.home.datasets / "stripes" / "wide.png"
    assert client.get(WIDE).status_code == 204
    assert client.put(WIDE, content=png(painted()), headers={"content-type": "image/png"}).status_code == 200
    mask = masks.read(picture)
    assert mask is not None
    assert mask.size == (1600, 800)
    assert (mask.getpixel((700, 400)), mask.getpixel((900, 400))) == (255, 0)
    answer = client.get(WIDE)
    with Image.open(io.BytesIO(answer.content)) as paint:
        opaque = np.asarray(paint.convert("RGBA"))[..., 3]
    assert (opaque == np.asarray(painted())[..., 3]).mean() > 0.99
    Edits(picture.parent).undo()
    assert masks.found(picture) is None
    client.put(WIDE, content=png(painted()), headers={"content-type": "image/png"})
    assert client.delete(WIDE).status_code == 200
    assert masks.found(picture) is None


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"no picture", "cannot be read"),
        (b"", "cannot be read"),
        (png(painted())[:-60], "cannot be read"),
        (png(painted().convert("RGB"), "JPEG"), "cannot be read"),
        (png(Image.new("RGBA", (768, 384))), "Nothing is painted"),
        (png(painted((400, 400))), "without cropping"),
        (png(painted((2000, 1000))), "larger than"),
    ],
)
def test_what_is_no_painting_of_the_picture_is_refused(client: TestClient, desk: Desk, content: bytes, said: str) -> None:
    answer = client.put(WIDE, content=content, headers={"content-type": "image/png"})
    assert answer.status_code == 422
    if content:
        assert said in answer.json()["message"]
    assert masks.found(desk.home.datasets / "stripes" / "wide.png") is None


def test_a_mask_of_another_program_is_shown_and_a_damaged_one_told(client: TestClient, desk: Desk) -> None:
    other = desk.home.datasets / "stripes" / "wide-masklabel.png"
    Image.new("L", (1600, 800), 255).save(other)
    assert client.get(WIDE).status_code == 200
    other.write_bytes(b"no picture")
    answer = client.get(WIDE)
    assert answer.status_code == 422
    assert "wide-masklabel.png" in answer.json()["message"]
    for name in ("gone.png", "..%2Fsecret.png"):
        assert client.get(f"/studio/datasets/stripes/pictures/{name}/mask").status_code in (404, 422)
