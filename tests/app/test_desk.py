import pytest

from app.desk import Desk
from trainer.errors import DatasetError


def test_the_datasets_there_are(desk: Desk) -> None:
    (desk.home.datasets / ".hidden").mkdir()
    (desk.home.datasets / "a file").touch()
    assert desk.dataset_names() == ["empty", "stripes"]
    assert len(desk.dataset("stripes").pictures) == 3


@pytest.mark.parametrize("name", ["", None, "..", "gone", "stripes/../stripes", "/"])
def test_a_name_is_one_of_those(desk: Desk, name: str | None) -> None:
    with pytest.raises(DatasetError):
        desk.dataset(name)


def test_one_picture(desk: Desk) -> None:
    assert desk.picture("stripes", "01.png").caption == "a picture"
    for name in ("../stripes/01.png", "gone.png", "", "."):
        with pytest.raises(DatasetError):
            desk.picture("stripes", name)
