"""The tab *Dataset*: pictures dropped into a plain folder, their captions and the trigger word, each written at once.

What is edited is named by hidden fields that change together with what they name, never by the place in a list: a caption
cannot reach a neighbour, however fast one clicks.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr

from app.desk import Desk
from app.notice import literal, told
from trainer.data.dataset import Dataset, Picture, add_files, remove_picture
from trainer.errors import DatasetError, PictureError, storing
from trainer.home import free_name, safe_name, shipped

PAGE = 60
"""Pictures shown at a time."""

FIRST_NAME = "my-style"
"""The dataset that the first dropped pictures make."""

NOTHING = "No dataset yet. Drop the pictures of a style, twelve to fifty, to begin one."

IN_ORDER: dict[str, Any] = {"concurrency_id": "captions", "concurrency_limit": 1, "trigger_mode": "multiple"}
"""Every event of these is handled, one after the other, in the order in which they happened."""

Updates = dict[Any, Any]


class DatasetTab:
    """The tab's components and what they do."""

    def __init__(self, desk: Desk) -> None:
        """Build the tab where the page is being built."""
        self.desk = desk
        self.shown = gr.Textbox(visible=False)
        self.picked = gr.Textbox(visible=False)
        with gr.Row(elem_classes="impasto-line"):
            self.name = gr.Dropdown([], label="Dataset", elem_id="dataset-name", scale=2)
            self.new_name = gr.Textbox(label="New dataset", placeholder="its name, such as watercolour", max_lines=1, scale=2)
            self.create = gr.Button("Create", scale=1, min_width=100)
        with gr.Row():
            with gr.Column(scale=3):
                self.drop = gr.File(label="Drop pictures here", file_count="multiple", height=130, elem_id="drop")
                self.notes = gr.Markdown(elem_classes="impasto-notes", latex_delimiters=[], visible=False)
                self.summary = gr.Markdown(latex_delimiters=[])
                self.gallery = gr.Gallery(
                    columns=6, height="auto", allow_preview=False, interactive=False, object_fit="cover", show_label=False,
                    buttons=[], elem_id="pictures", label="Pictures",
                )  # fmt: skip
                self.page = gr.Slider(1, 2, 1, step=1, label="Page", visible=False)
                with gr.Accordion("Start with a sample style", open=False) as self.samples, gr.Row():
                    self.styles = {style.name: gr.Button(_title(style), size="sm") for style in _sample_styles()}
            with gr.Column(scale=2, min_width=300):
                self.trigger = gr.Textbox(
                    label="Trigger word", max_lines=1, placeholder="a word of your own, such as vellorn", elem_id="trigger",
                    info="Calls the style in a prompt. It is put before every caption in the training.",
                )  # fmt: skip
                with gr.Group(visible=False, elem_id="editor") as self.editor:
                    self.picture = gr.Image(show_label=False, interactive=False, height=280, buttons=[], container=False)
                    self.caption = gr.Textbox(
                        label="Caption", lines=1, max_lines=8, elem_id="caption",
                        info="Say what is in the picture, not its style. Saved as you type; Enter goes to the next one.",
                    )  # fmt: skip
                    self.remove = gr.Button("Delete this picture", size="sm", variant="stop")

    @property
    def outputs(self) -> list[Any]:
        """What any of the tab's events may change."""
        return [
            self.shown, self.picked, self.name, self.new_name, self.drop, self.notes, self.summary, self.gallery, self.page,
            self.samples, self.trigger, self.editor, self.picture, self.caption,
        ]  # fmt: skip

    def connect(self) -> None:
        """Wire the events."""
        self.name.input(told(self.show), self.name, self.outputs, show_progress="hidden")
        self.page.release(told(self.show), [self.name, self.page], self.outputs, show_progress="hidden")
        gr.on([self.create.click, self.new_name.submit], told(self.create_dataset), self.new_name, self.outputs)
        self.drop.upload(told(self.add), [self.name, self.drop], self.outputs, show_progress_on=self.drop)
        for style, button in self.styles.items():
            button.click(told(self.sample_adder(style)), None, self.outputs)
        self.gallery.select(told(self.pick), self.shown, self.outputs, show_progress="hidden", **IN_ORDER)
        gr.on(
            [self.caption.input, self.caption.blur], told(self.save_caption), [self.picked, self.caption],
            show_progress="hidden", **IN_ORDER,
        )  # fmt: skip
        self.caption.submit(
            told(self.save_and_go_on), [self.picked, self.caption], self.outputs, show_progress="hidden", **IN_ORDER
        )
        self.remove.click(told(self.remove_picked), self.picked, self.outputs, **IN_ORDER)
        gr.on(
            [self.trigger.input, self.trigger.blur], told(self.save_trigger), [self.shown, self.trigger],
            show_progress="hidden", **IN_ORDER,
        )  # fmt: skip

    def show(self, name: str | None, page: int = 1) -> Updates:
        """A dataset, or what to do where there is none. Raises `DatasetError`."""
        names = self.desk.dataset_names()
        if name not in names:
            name = names[0] if names else None
        updates: Updates = {
            self.name: gr.update(choices=names, value=name),
            self.shown: name or "",
            self.picked: "",
            self.editor: gr.update(visible=False),
            self.notes: gr.update(visible=False),
            self.samples: gr.update(open=not names),
        }
        if name is None:
            return {**updates, self.summary: NOTHING, self.gallery: gr.update(value=[], visible=False), self.trigger: ""}
        dataset = self.desk.dataset(name)
        pages = max(1, -(-len(dataset.pictures) // PAGE))
        page = min(max(1, int(page)), pages)
        tiles, damaged = self._tiles(dataset.pictures[(page - 1) * PAGE : page * PAGE])
        return {
            **updates,
            self.trigger: dataset.trigger,
            self.summary: _summary(dataset),
            self.gallery: gr.update(value=tiles, selected_index=None, visible=bool(tiles)),
            self.page: gr.update(visible=pages > 1, maximum=max(2, pages), value=page),
            **self._noted([*dataset.refused, *damaged]),
        }

    def create_dataset(self, name: str) -> Updates:
        """A new, empty dataset. Raises `DatasetError`, `StorageError`."""
        if not name.strip():
            raise DatasetError("Give the new dataset a name first.")
        folder = self.desk.home.datasets / safe_name(name)
        if folder.exists():
            raise DatasetError(f"There is a dataset {folder.name} already: choose another name.")
        with storing(folder):
            folder.mkdir(parents=True)
        return {**self.show(folder.name), self.new_name: ""}

    def add(self, name: str | None, dropped: Sequence[str] | None) -> Updates:
        """Copy dropped files into the dataset, or into a new one. Raises `DatasetError`, `StorageError`."""
        files = [Path(path) for path in dropped or ()]
        folder = self.desk.dataset(name).folder if name else free_name(self.desk.home.datasets, FIRST_NAME)
        _, refused = add_files(folder, files)
        for path in files:
            path.unlink(missing_ok=True)  # the browser's copy
        updates = self.show(folder.name)
        refused = [*refused, *(sentence for sentence in self.desk.dataset(folder.name).refused if sentence not in refused)]
        return {**updates, self.drop: None, **self._noted(refused)}

    def sample_adder(self, style: str) -> Any:
        """The handler that puts a sample style among the datasets."""

        def add_sample() -> Updates:
            source, folder = shipped("assets", "styles", style), self.desk.home.datasets / style
            if not folder.exists():
                add_files(folder, sorted(path for path in source.iterdir() if path.suffix != ".toml"))
                Dataset.open(folder).write_trigger(Dataset.open(source).trigger)
            return self.show(style)

        return add_sample

    def pick(self, shown: str, event: gr.SelectData) -> Updates:
        """Open the picture that was clicked. Raises `DatasetError`."""
        return self._edit(self.desk.picture(shown, event.value["caption"]))

    def save_caption(self, picked: str, caption: str) -> None:
        """Write the caption of the picture that the hidden field names. Raises `DatasetError`, `StorageError`."""
        if picked:
            picture = self._named(picked)
            if picture.caption != " ".join(caption.split()):
                picture.write_caption(caption)

    def save_and_go_on(self, picked: str, caption: str) -> Updates:
        """Write the caption and open the next picture. Raises `DatasetError`, `StorageError`."""
        self.save_caption(picked, caption)
        pictures = self.desk.dataset(picked.partition("/")[0]).pictures
        place = next((index for index, each in enumerate(pictures) if each.path.name == picked.partition("/")[2]), -1)
        at = (place + 1) % len(pictures)
        highlighted = at % PAGE if at // PAGE == place // PAGE else None
        return {**self._edit(pictures[at]), self.gallery: gr.update(selected_index=highlighted)}

    def remove_picked(self, picked: str) -> Updates:
        """Delete the picture that is open. Raises `DatasetError`, `StorageError`."""
        if not picked:
            return {}
        picture = self._named(picked)
        remove_picture(picture)
        return self.show(picture.path.parent.name)

    def save_trigger(self, shown: str, trigger: str) -> None:
        """Write the trigger word of the dataset that the hidden field names. Raises `DatasetError`, `StorageError`."""
        if shown:
            dataset, word = self.desk.dataset(shown), " ".join(trigger.split())
            if dataset.trigger != word:
                dataset.write_trigger(word)

    def _named(self, picked: str) -> Picture:
        dataset, _, picture = picked.partition("/")
        return self.desk.picture(dataset, picture)

    def _edit(self, picture: Picture) -> Updates:
        return {
            self.picked: f"{picture.path.parent.name}/{picture.path.name}",
            self.editor: gr.update(visible=True),
            self.picture: self.desk.thumbnails.of(picture.path, 768),
            self.caption: gr.update(value=picture.caption, label=f"Caption of {picture.path.name}"),
        }

    def _tiles(self, pictures: Sequence[Picture]) -> tuple[list[tuple[Path, str]], list[str]]:
        """Thumbnails with their pictures' names, and a sentence for each picture that cannot be shown."""
        tiles, damaged = [], []
        for picture in pictures:
            try:
                tiles.append((self.desk.thumbnails.of(picture.path), picture.path.name))
            except PictureError as error:
                damaged.append(str(error))
        return tiles, damaged

    def _noted(self, sentences: Sequence[str]) -> Updates:
        lines = "\n".join(f"- {literal(sentence)}" for sentence in sentences)
        return {self.notes: gr.update(value=f"**Not added or not usable**\n\n{lines}", visible=True)} if sentences else {}


def _sample_styles() -> list[Path]:
    return sorted(path for path in shipped("assets", "styles").iterdir() if path.is_dir())


def _title(style: Path) -> str:
    return style.name.replace("-", " ").capitalize()


def _summary(dataset: Dataset) -> str:
    count = len(dataset.pictures)
    without = sum(1 for picture in dataset.pictures if not picture.caption)
    pictures = f"**{count}** picture{'' if count == 1 else 's'}"
    if not count:
        return "This dataset is empty. Drop the pictures of a style, twelve to fifty; `.txt` captions may come along."
    if without:
        return f"{pictures}, {without} without a caption. Click a picture to write one."
    return f"{pictures}, all with a caption. Click a picture to change it."
