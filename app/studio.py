"""What the page's gallery and caption editor ask for, under `/studio`: pictures, their captions, crops, and changes undone.

Every change goes through the dataset's `Edits`, and names the picture that it is for and what it is to replace: it can neither
reach a neighbour nor overwrite what somebody else wrote meanwhile. Knows no Gradio; who may ask is the server's matter.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from fastapi import APIRouter, FastAPI, Query, Request
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import BaseModel, Field

from app.desk import Desk
from app.listing import Entry, Listing
from trainer.data import captions, crops, variety
from trainer.data.dataset import Dataset
from trainer.data.editing import bulk
from trainer.data.editing.edits import CaptionConflict, Edits
from trainer.errors import DatasetError, ImpastoError
from trainer.home import shipped
from trainer.settings_text import validated

SCRIPTS = "text/javascript; charset=utf-8"
"""Said by ourselves: what Windows takes `.js` for depends on what is installed there."""

FOR_EVER = {"Cache-Control": "private, max-age=31536000, immutable"}
"""The address of a small copy holds what it was made from."""

SAMPLES = 6
"""So many ways of varying a caption are shown."""

MOST_SHOWN = 200
"""So many changed captions are listed before they are made."""

Box = tuple[float, float, float, float]
Point = tuple[float, float]
Side = Annotated[int, Query(ge=64, le=1024)]


class Pictures(BaseModel):
    """Those pictures of a dataset that have changed since they were last asked for: at first, all."""

    version: str
    trigger: str
    changed: list[Entry]
    gone: list[str]
    undo: str | None
    """What undo would take back."""


class Known(BaseModel):
    """Which pictures are shown in which state."""

    states: dict[str, str] = {}


class Written(BaseModel):
    """A caption as it was typed; `was` is every text that it may replace."""

    was: list[str]
    text: Annotated[str, Field(max_length=100_000)]


class Names(BaseModel):
    """Some pictures."""

    names: list[str]


class Seen(BaseModel):
    """What training sees of a picture: shares of its width and height, left, top, right, bottom."""

    box: Box
    bucket: tuple[int, int]
    upscale: float
    crop: Box | None
    """As it was set by hand."""
    focus: Point | None
    """The point that was set to be kept in the middle."""


class Placed(BaseModel):
    """What of a picture is to be seen: a part of it, a point to keep near the middle. What is not given stays so."""

    crop: Box | None = None
    focus: Point | Literal["content"] | None = None
    """`content`: where the subject probably is."""


class Bulk(BaseModel):
    """One edit of many captions."""

    kind: Literal["replace", "before", "after", "remove", "sort"]
    text: str = ""
    by: str = ""
    case: bool = False
    words: bool = False
    names: list[str]
    apply: bool = False

    def edit(self, trigger: str) -> bulk.Edit:
        """The edit itself; sorting leaves the trigger word in front."""
        match self.kind:
            case "replace":
                return bulk.Replace(self.text, self.by, self.case, self.words)
            case "before":
                return bulk.Before(self.text)
            case "after":
                return bulk.After(self.text)
            case "remove":
                return bulk.RemoveTag(self.text)
            case "sort":
                return bulk.SortTags(trigger)


class Change(BaseModel):
    """One caption before and after."""

    name: str
    before: str
    after: str


class Changes(BaseModel):
    """The captions that an edit changes: the first of them, and how many they are."""

    count: int
    changes: list[Change]
    conflicts: list[str] = []
    """Those that were not changed, because somebody else changed them meanwhile."""


class Visit(BaseModel):
    """A person typed at the caption of a picture, which said `was` before: it is saved many times, but undone as one."""

    name: str
    was: str


class Undone(BaseModel):
    """What was taken back, and the pictures that it concerned."""

    what: str
    names: list[str]
    left: list[str]
    """Those that stay as they are, because somebody else changed them after that."""


class Varied(BaseModel):
    """The caption of a picture, and how training is to vary it."""

    name: str
    text: str
    shuffle_tags: bool = False
    keep_tags: int = 0
    tag_dropout: float = 0.0
    wildcards: bool = False


def add(app: FastAPI, desk: Desk) -> None:
    """Have `app` answer under `/studio`."""
    app.include_router(Studio(desk).router())
    app.add_exception_handler(ImpastoError, _told)


class Studio:
    """What is asked for by whoever looks at the page. Each dataset is named in each question: nothing is kept here."""

    def __init__(self, desk: Desk) -> None:
        self.desk = desk

    def router(self) -> APIRouter:
        """The addresses. Pictures' names are parts of them, for no name holds a slash."""
        router = APIRouter(prefix="/studio")
        dataset, picture = "/datasets/{dataset}", "/datasets/{dataset}/pictures/{name}"
        router.get("/page/{script}")(self.script)
        router.get(f"{dataset}/version")(self.version)
        router.post(f"{dataset}/pictures")(self.pictures)
        router.get(f"{picture}/copy")(self.copy)
        router.get(f"{picture}/crop")(self.seen)
        router.put(f"{picture}/crop")(self.place)
        router.put(f"{picture}/caption", response_model=None)(self.write)
        router.post(f"{dataset}/remove")(self.remove)
        router.post(f"{dataset}/undo")(self.undo)
        router.post(f"{dataset}/bulk")(self.bulk)
        router.get(f"{dataset}/tags")(self.tags)
        router.get(f"{dataset}/tagged")(self.tagged)
        router.post(f"{dataset}/variants")(self.variants)
        return router

    def script(self, script: str) -> FileResponse:
        """A module of the page's own script."""
        found = {path.name: path for path in shipped("assets", "page", "studio").glob("*.js")}.get(script)
        if found is None:
            raise DatasetError(f"The page has no script {script}: reload the page.")
        return FileResponse(found, media_type=SCRIPTS, headers={"Cache-Control": "no-cache"})

    def version(self, dataset: str) -> str:
        """Differs from what it was if anything in the dataset has changed."""
        return Listing(self._folder(dataset)).version

    def pictures(self, dataset: str, known: Known) -> Pictures:
        """What there is to show, or has changed."""
        folder = self._folder(dataset)
        listing = Listing(folder)
        return Pictures(
            version=listing.version,
            trigger=listing.trigger,
            changed=listing.entries(known.states),
            gone=listing.gone(known.states),
            undo=Edits(folder).last,
        )

    def copy(self, dataset: str, name: str, side: Side = 256) -> Response:
        """A small copy of a picture."""
        copy = self.desk.thumbnails.of(self._path(dataset, name), side)
        return Response(copy.read_bytes(), media_type="image/webp", headers=FOR_EVER)

    def seen(self, dataset: str, name: str, resolution: Annotated[int, Query(ge=64, le=2048)] = 1024) -> Seen:
        """What training sees of a picture at a resolution."""
        picture = self.desk.picture(dataset, name)
        about = Dataset(picture.path.parent, (picture,), ())
        placement = crops.seen(picture, validated({"resolution": resolution // 32 * 32}), about)
        return Seen(
            box=crops.box(placement),
            bucket=(placement.bucket.width, placement.bucket.height),
            upscale=placement.upscale,
            crop=about.crops.get(name),
            focus=about.focus.get(name),
        )

    def place(self, dataset: str, name: str, placed: Placed) -> Entry:
        """Set what training sees of a picture, or leave it to the bucket again."""
        path = self._path(dataset, name)
        edits = Edits(path.parent)
        if "crop" in placed.model_fields_set:
            edits.set("crops", {name: placed.crop})
        if "focus" in placed.model_fields_set:
            edits.set("focus", {name: crops.by_content(path) if placed.focus == "content" else placed.focus})
        return self._entry(path)

    def write(self, dataset: str, name: str, written: Written) -> Entry | JSONResponse:
        """Replace a caption. Where the file says neither text nor anything of `was`: 409, and what it says."""
        path = self._path(dataset, name)
        conflict = CaptionConflict("")
        for was in written.was:
            try:
                Edits(path.parent).caption(name, was, written.text)
            except CaptionConflict as error:
                conflict = error
            else:
                return self._entry(path)
        return JSONResponse({"message": str(conflict), "current": conflict.current}, 409)

    def remove(self, dataset: str, given: Names) -> None:
        """Take pictures out of the dataset, with their captions and masks."""
        Edits(self._folder(dataset)).remove(given.names)

    def undo(self, dataset: str, visit: Visit | None = None) -> Undone | None:
        """Take the last change back, and if it belongs to the last visit, all of that; None if there is nothing to undo."""
        folder = self._folder(dataset)
        edits = Edits(folder)
        undone = edits.undo()
        if undone is None:
            return None
        if visit and undone.what == f"caption of {visit.name}":
            text = (folder / visit.name).with_suffix(".txt")
            while edits.last == undone.what and captions.read(text) != visit.was:
                edits.undo()
        return Undone(what=undone.what, names=list(undone.names), left=list(undone.left))

    def bulk(self, dataset: str, given: Bulk) -> Changes:
        """What an edit does to captions; and do it, if that is asked for."""
        listing = Listing(self._folder(dataset))
        texts = listing.captions()
        changes = bulk.changes({name: texts[name] for name in given.names if name in texts}, given.edit(listing.trigger))
        conflicts: list[str] = []
        if given.apply and changes:
            conflicts = Edits(listing.folder).captions(changes, f"edit of {len(changes)} captions")
        shown = [Change(name=name, before=before, after=after) for name, (before, after) in list(changes.items())[:MOST_SHOWN]]
        return Changes(count=len(changes), changes=shown, conflicts=conflicts)

    def tags(self, dataset: str) -> list[tuple[str, int]]:
        """Every tag and how many captions hold it, the most frequent first."""
        return bulk.tags(Listing(self._folder(dataset)).captions()).most_common()

    def tagged(self, dataset: str, tag: str) -> list[str]:
        """The pictures whose captions hold a tag."""
        return list(bulk.changes(Listing(self._folder(dataset)).captions(), bulk.RemoveTag(tag)))

    def variants(self, dataset: str, given: Varied) -> list[str]:
        """Some of the texts that a caption becomes in training."""
        trigger = Dataset(self._folder(dataset), (), ()).trigger
        settings = validated({**given.model_dump(exclude={"name", "text"}), "trigger": trigger})
        return variety.variants(given.text, settings, SAMPLES, given.name)

    def _folder(self, dataset: str) -> Path:
        if dataset not in self.desk.dataset_names():
            raise DatasetError(f"There is no dataset “{dataset}” any more: choose another one.")
        return self.desk.home.datasets / dataset

    def _path(self, dataset: str, name: str) -> Path:
        path = self._folder(dataset) / name
        if path.name != name or not path.is_file():
            raise DatasetError(f"{name} is not in the dataset “{dataset}” any more.")
        return path

    def _entry(self, path: Path) -> Entry:
        entry = Listing(path.parent).entry(path.name)
        if entry is None:
            raise DatasetError(f"{path.name} is not in the dataset “{path.parent.name}” any more.")
        return entry


def _told(request: Request, error: Exception) -> Response:
    return JSONResponse({"message": str(error)}, 422)
