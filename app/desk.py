"""What all tabs of the page work with: the home folder, the trainings, the previewer. The page has no other memory."""

from __future__ import annotations

from dataclasses import dataclass

from app.arrivals import Arrivals
from app.captioning import Captioning
from app.checkup import Checkup
from app.jobs import Previewer, Trainings
from app.thumbnails import Thumbnails
from app.watch import Watch
from trainer.data import intake
from trainer.data.dataset import Dataset, Picture
from trainer.errors import DatasetError
from trainer.home import Home


@dataclass(frozen=True)
class Desk:
    """One for the whole page, whoever looks at it."""

    home: Home
    trainings: Trainings
    previewer: Previewer
    watch: Watch
    thumbnails: Thumbnails
    arrivals: Arrivals
    checkup: Checkup
    captioning: Captioning

    @classmethod
    def of(cls, home: Home) -> Desk:
        """The desk of a home folder."""
        return cls(
            home, Trainings(home), Previewer(home), Watch(), Thumbnails(home.cache / "thumbnails"),
            Arrivals(home.cache / "dropped"), Checkup(home.cache), Captioning(home),
        )  # fmt: skip

    def dataset_names(self) -> list[str]:
        """The datasets there are."""
        folder = self.home.datasets
        found = (path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ()
        return sorted((name for name in found if not name.startswith(".")), key=str.lower)

    def dataset(self, name: str | None) -> Dataset:
        """The dataset of that name. Raises `DatasetError`."""
        if not name:
            raise DatasetError("Choose a dataset first, or drop pictures to begin one.")
        if name not in self.dataset_names():
            raise DatasetError(f"There is no dataset “{name}” any more: choose another one.")
        return Dataset.open(self.home.datasets / name)

    def picture(self, dataset: str, name: str) -> Picture:
        """One picture of a dataset, without reading the others. Raises `DatasetError`."""
        path = self.home.datasets / dataset / name
        if dataset not in self.dataset_names() or path.name != name or not path.is_file():
            raise DatasetError(f"{name} is not in the dataset “{dataset}” any more.")
        header = intake.read_header(path)
        return Picture(path, header.width, header.height)
