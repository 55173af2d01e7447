"""What the page's drop zone, trigger word and findings ask for, under `/studio`. Knows no Gradio; see `app/studio.py`."""

from __future__ import annotations

import asyncio
import os
import secrets
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, Field
from starlette.background import BackgroundTask

from app.arrivals import Adding, Colour
from app.checkup import Report
from app.desk import Desk
from app.listing import Listing
from trainer.data.arrival import archive
from trainer.data.checkup import mending
from trainer.data.dataset import Dataset
from trainer.data.editing.edits import CaptionConflict, Edits
from trainer.errors import DatasetError, storing
from trainer.home import free_name
from trainer.settings_text import validated

FIRST_NAME = "my-style"
"""The dataset that the first dropped pictures make."""

LARGEST = archive.MOST_BYTES
"""Bytes of one dropped file."""

BACKGROUNDS: dict[str, Colour] = {"white": (255, 255, 255), "grey": (128, 128, 128), "black": (0, 0, 0)}


class Dropped(BaseModel):
    """A parcel is complete: add it to `dataset`, or to a new one if that is empty."""

    dataset: str = ""
    background: Literal["white", "grey", "black"] = "white"


class Asked(BaseModel):
    """The settings that the findings are for, those that differ from what they are otherwise."""

    settings: dict[str, Any] = {}


class Work(BaseModel):
    """A dataset as a whole, and what is being done to it."""

    trigger: str
    pictures: int
    adding: Adding | None
    report: Report


class Word(BaseModel):
    """A trigger word; `was` is every word that it may replace."""

    was: list[str]
    text: Annotated[str, Field(max_length=200)]


class Mend(BaseModel):
    """What a finding of this kind is about is to be mended in these pictures."""

    kind: str
    names: list[str]
    settings: dict[str, Any] = {}


def add(app: FastAPI, desk: Desk) -> None:
    """Have `app` answer."""
    app.include_router(Workbench(desk).router())


class Workbench:
    """What is asked for by whoever looks at the page."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def router(self) -> APIRouter:
        """The addresses."""
        router = APIRouter(prefix="/studio")
        parcel, dataset = "/parcels/{parcel}", "/datasets/{dataset}"
        router.post("/parcels")(self.begin)
        router.put(f"{parcel}/file")(self.receive)
        router.post(f"{parcel}/add")(self.add)
        router.delete(parcel)(self.drop)
        router.post(f"{dataset}/stop")(self.stop)
        router.post(f"{dataset}/seen")(self.seen)
        router.post(f"{dataset}/work", response_model_exclude={"report": {"state"}})(self.work)
        router.put(f"{dataset}/trigger", response_model=None)(self.trigger)
        router.post(f"{dataset}/mend")(self.mend)
        router.get(f"{dataset}/zip")(self.zip)
        return router

    def begin(self) -> str:
        """A new parcel for dropped files."""
        return self.desk.arrivals.begin()

    async def receive(self, parcel: str, request: Request, path: Annotated[str, Query(max_length=4000)]) -> None:
        """One file of a parcel, as the request's body; `path` is its path in the dropped folder."""
        target = await asyncio.to_thread(self.desk.arrivals.place, parcel, path)
        got = 0
        with storing(target), target.open("wb") as file:
            async for block in request.stream():
                got += len(block)
                if got > LARGEST:
                    raise DatasetError(f"{target.name} is larger than {LARGEST / 1e9:.0f} GB: unpack it and drop the folder.")
                await asyncio.to_thread(file.write, block)

    def add(self, parcel: str, given: Dropped) -> str:
        """Begin to add a parcel; the name of the dataset that it goes into."""
        datasets = self.desk.home.datasets
        folder = self._folder(given.dataset) if given.dataset else free_name(datasets, FIRST_NAME)
        with storing(folder):
            folder.mkdir(parents=True, exist_ok=True)
        self.desk.arrivals.add(parcel, folder, BACKGROUNDS[given.background])
        return folder.name

    def drop(self, parcel: str) -> None:
        """Forget a parcel."""
        self.desk.arrivals.drop(parcel)

    def stop(self, dataset: str) -> None:
        """Add no more; what is in stays."""
        self.desk.arrivals.stop(self._folder(dataset))

    def seen(self, dataset: str) -> None:
        """What became of the files that were dropped need not be told any more."""
        self.desk.arrivals.seen(self._folder(dataset))

    def work(self, dataset: str, asked: Asked) -> Work:
        """What there is to say of the dataset as a whole."""
        folder = self._folder(dataset)
        listing, adding = Listing(folder), self.desk.arrivals.of(folder)
        report = Report(busy=True) if adding and adding.busy else self.desk.checkup.report(folder, validated(asked.settings))
        return Work(trigger=listing.trigger, pictures=len(listing), adding=adding, report=report)

    def trigger(self, dataset: str, word: Word) -> dict[str, str] | JSONResponse:
        """Replace the trigger word. Where it is neither that nor anything of `was`: 409, and what it is."""
        folder = self._folder(dataset)
        conflict = CaptionConflict("")
        for was in word.was:
            try:
                Edits(folder).trigger(was, word.text)
            except CaptionConflict as error:
                conflict = error
            else:
                return {"caption": Dataset(folder, (), ()).trigger}
        return JSONResponse({"message": str(conflict), "current": conflict.current}, 409)

    def mend(self, dataset: str, given: Mend) -> str:
        """Mend what a finding names; what was done, in a sentence."""
        folder = self._folder(dataset)
        return mending.mend(given.kind, given.names, Edits(folder), validated(given.settings), self.desk.home.cache)

    def zip(self, dataset: str) -> Response:
        """The dataset as one file, which the drop zone takes again."""
        folder = self._folder(dataset)
        with storing(self.desk.arrivals.folder):
            self.desk.arrivals.folder.mkdir(parents=True, exist_ok=True)
        out = self.desk.arrivals.folder / f"{secrets.token_hex(8)}.zip"
        archive.packed(folder, out)
        return FileResponse(out, filename=f"{dataset}.zip", background=BackgroundTask(os.unlink, out))

    def _folder(self, dataset: str) -> Path:
        if dataset not in self.desk.dataset_names():
            raise DatasetError(f"There is no dataset “{dataset}” any more: choose another one.")
        return self.desk.home.datasets / dataset
