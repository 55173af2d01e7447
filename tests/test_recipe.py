"""LoRAs with weights as text, requests and their bounds, and the recipe in the picture."""

from __future__ import annotations

import errno
import json
import os
import struct
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from trainer.errors import StorageError, UsageError
from trainer.recipe import LoraChoice, Request, infotext, is_own, read_infotext, recipe_of, write_png


@pytest.mark.parametrize(
    ("given", "path", "unet", "text"),
    [
        ("a.safetensors", "a.safetensors", 1.0, 1.0),
        ("a.safetensors:0.8", "a.safetensors", 0.8, 0.8),
        ("a.safetensors:0.8:0.5", "a.safetensors", 0.8, 0.5),
        ("a.safetensors:0:1", "a.safetensors", 0.0, 1.0),
        ("a.safetensors:-1", "a.safetensors", -1.0, -1.0),
        ("C:\\loras\\a.safetensors", "C:\\loras\\a.safetensors", 1.0, 1.0),
        ("C:\\loras\\a.safetensors:0.8", "C:\\loras\\a.safetensors", 0.8, 0.8),
        ("C:\\loras\\a.safetensors:0.8:0.5", "C:\\loras\\a.safetensors", 0.8, 0.5),
        ("C:/loras/a.safetensors:1e-1", "C:/loras/a.safetensors", 0.1, 0.1),
        ("my:odd:name.safetensors:0.5", "my:odd:name.safetensors", 0.5, 0.5),
    ],
)
def test_weights_are_split_from_the_right(given: str, path: str, unet: float, text: float) -> None:
    assert LoraChoice.parse(given) == LoraChoice(Path(path), unet, text)


@pytest.mark.parametrize("given", ["a.safetensors:11", "a.safetensors:nan", "a.safetensors:inf", "a.safetensors:1:-99"])
def test_weights_beyond_all_sense_are_refused(given: str) -> None:
    with pytest.raises(UsageError, match="must be numbers from -10 to 10"):
        LoraChoice.parse(given)


@pytest.mark.parametrize("wrong", ["0,8", "abc", "", "0.8:", "1:2:3", ":0.5"])
def test_what_is_no_weight_is_told_of(wrong: str) -> None:
    for name in ("a.safetensors", "C:\\my loras\\a.SafeTensors"):
        with pytest.raises(UsageError) as told:
            LoraChoice.parse(f"{name}:{wrong}@style")
        assert str(told.value) == f'"{wrong}" is no weight: write {name}:0.8 or {name}:0.8:0.5, with a point.'


STYLE = (("unet", 0.0), ("up_blocks.0.attentions.1", 1.0))


@pytest.mark.parametrize(
    ("given", "choice"),
    [
        ("a.safetensors@style", LoraChoice(Path("a.safetensors"), blocks=STYLE)),
        ("C:\\me@home\\a.safetensors:0.8@style", LoraChoice(Path("C:\\me@home\\a.safetensors"), 0.8, 0.8, STYLE)),
        ("C:\\a@2.safetensors:0.8:0.5", LoraChoice(Path("C:\\a@2.safetensors"), 0.8, 0.5)),
        ("/me@home/a@2.safetensors@style", LoraChoice(Path("/me@home/a@2.safetensors"), blocks=STYLE)),
        (
            "a.safetensors:0.8@up_blocks.0=1@down_blocks=-0.3",
            LoraChoice(Path("a.safetensors"), 0.8, 0.8, (("up_blocks.0", 1.0), ("down_blocks", -0.3))),
        ),
        (
            "a.safetensors:0.8@up_blocks.0=1,down_blocks=0.3,steps=0.2-0.8",
            LoraChoice(Path("a.safetensors"), 0.8, 0.8, (("up_blocks.0", 1.0), ("down_blocks", 0.3)), 0.2, 0.8),
        ),
        ("a,b.safetensors:1:0@steps=0-.5", LoraChoice(Path("a,b.safetensors"), 1.0, 0.0, (), 0.0, 0.5)),
    ],
)
def test_parts_of_a_lora_stand_behind_its_weights(given: str, choice: LoraChoice) -> None:
    assert LoraChoice.parse(given) == choice


@pytest.mark.parametrize("part", ["stile", "steps=1", "steps=a-b", "up_blocks=x", "=1", "steps"])
def test_what_is_no_part_of_a_lora_is_told_of(part: str) -> None:
    with pytest.raises(UsageError, match=f"'{part}' is no part of a LoRA: use @style"):
        LoraChoice.parse(f"a.safetensors:0.8@{part}")


def test_an_at_sign_with_nothing_behind_it_is_told_of() -> None:
    with pytest.raises(UsageError, match="Behind an @ there must be a part of the LoRA"):
        LoraChoice.parse("a.safetensors:0.8@")


@pytest.mark.parametrize("part", ["steps=0.8-0.2", "steps=0.5-0.5", "steps=0-1.1", "steps=0-nan"])
def test_steps_that_are_no_shares_are_refused(part: str) -> None:
    with pytest.raises(UsageError, match=r"shares from 0 to 1|no part of a LoRA"):
        LoraChoice.parse(f"a.safetensors:0.8@{part}")


def test_a_factor_beyond_all_sense_is_refused() -> None:
    with pytest.raises(UsageError, match=r"of a\.safetensors must be numbers from -10 to 10"):
        LoraChoice.parse("a.safetensors:0.8@mid_block=-11")


@pytest.mark.parametrize(
    ("parts", "steps", "inside"),
    [
        ("", 4, [0, 1, 2, 3]),
        ("@steps=0.5-1", 4, [2, 3]),
        ("@steps=0-0.3", 10, [0, 1, 2]),
        ("@steps=0.2-0.8", 3, [1]),
        ("@steps=0-0.0001", 25, [0]),
        ("@steps=0.9999-1", 25, [24]),
        ("@steps=0.5-0.51", 4, [2]),
    ],
)
def test_a_lora_is_there_in_its_share_of_the_steps(parts: str, steps: int, inside: list[int]) -> None:
    assert [step for step in range(steps) if A.with_parts(parts).in_step(step, steps)] == inside


@pytest.mark.parametrize(
    "wrong",
    [
        {"prediction": "x0"},
        {"steps": 0}, {"steps": 201}, {"cfg": 0.5}, {"cfg": float("nan")}, {"width": 100}, {"height": 32}, {"width": 8192},
        {"seed": -1},
    ],
)  # fmt: skip
def test_what_no_base_can_draw_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Request(prompt="a house", **wrong)


def test_a_request_goes_through_json_and_back() -> None:
    choice = LoraChoice(Path("a.safetensors"), 0.8, 0.5)
    asked = Request("ein Häuschen", "dog", 7, 12, 4.5, 512, 768, (choice, choice.with_parts("@mid_block=0.1@steps=0.5-1")))
    assert Request.from_json(json.loads(json.dumps(asked.to_json()))) == asked


def test_the_recipe_is_in_the_fields_words() -> None:
    asked = Request("a house", "dog", 7, 12, 4.5, 512, 768, (LoraChoice(Path("x/glass.safetensors"), 0.8, 0.5),))
    assert infotext(asked, "stabilityai/stable-diffusion-xl-base-1.0") == (
        "a house <lora:glass:0.5:0.8>\n"
        "Negative prompt: dog\n"
        "Steps: 12, Sampler: Euler, CFG scale: 4.5, Seed: 7, Size: 512x768, Model: stable-diffusion-xl-base-1.0, "
        r'Impasto: "{\"base\": \"stabilityai/stable-diffusion-xl-base-1.0\"}"'
    )


def test_what_the_fields_words_can_say_needs_no_more(tmp_path: Path) -> None:
    asked = Request("a house", loras=(LoraChoice(tmp_path / "glass.safetensors", 0.8, 0.8),))
    assert infotext(asked, str(tmp_path / "base.safetensors")) == (
        "a house <lora:glass:0.8>\nSteps: 25, Sampler: Euler, CFG scale: 6, Seed: 1, Size: 1024x1024, Model: base"
    )


A, B = LoraChoice(Path("a.safetensors"), 0.8, 0.5), LoraChoice(Path("b c.safetensors"), -1 / 3, 0.0)
RECIPES = {
    "plain": Request("a house"),
    "all": Request("ein Häuschen", "dog, cat", 7, 12, 4.56789012, 512, 768, (A, B), "v_prediction", "Euler a"),
    "tags of one's own": Request("a <lora:x:abc> house <lora:y:1.5> <lora:z>, sky", "a <lora:q:1> dog", loras=(A,)),
    "lines": Request('a\n\nhouse: "red", Steps: 3', "dog\nNegative prompt: cat", loras=(A,)),
    "signs": Request('"', '\\, "\\n", 東京\r\n🐟\u2028\x0b, ', loras=(A,)),
    "a false negative": Request("a house\nNegative prompt: dog"),
    "a false end": Request("Steps: 3, Sampler: LCM, Seed: 4, Size: 5x6\n", ""),
    "nothing": Request(""),
    "spaces": Request(" a house ", "  "),
    "style": Request("a", loras=(A.with_parts("@style"), B.with_parts("@steps=0.2-0.8"))),
    "blocks": Request("a", loras=(A.with_parts("@unet=0@up_blocks.0=1e-05@mid_block=-0.3333333333333333@steps=1e-05-0.5"),)),
    "equal strength": Request("a", loras=(A, B), equal_strength=True),
}


@pytest.mark.parametrize("base", ["starter", "stabilityai/stable-diffusion-xl-base-1.0", "a,b: c", 'two\nlines, "quoted" '])
@pytest.mark.parametrize("asked", RECIPES.values(), ids=RECIPES.keys())
def test_reading_a_recipe_restores_all_of_it(asked: Request, base: str) -> None:
    assert read_infotext(infotext(asked, base)) == (asked, base)


def test_a_recipe_tells_nothing_of_where_files_lie(tmp_path: Path) -> None:
    asked = Request("a", loras=(LoraChoice(tmp_path / "deep" / "a.safetensors").with_parts("@style"),))
    text = infotext(asked, str(tmp_path / "deep" / "base.safetensors"))
    assert tmp_path.name not in text
    assert "deep" not in text


def test_a1111s_own_text_is_read() -> None:
    """As its documentation shows it, with a LoRA whose text encoders have another weight."""
    text = (
        "girl with an artist's beret, ((detailed)) <lora:glass:0.5:0.8>, by Alphonse Mucha <lora:ink:0.7>\n"
        "Negative prompt: ugly, fat, [blurry]\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7, Seed: 965400086, Size: 512x768, "
        'Model hash: 45dee52b, Model: some_base, Lora hashes: "glass: 1a2b, ink: 3c4d", Version: v1.9.0'
    )
    assert read_infotext(text) == (
        Request(
            "girl with an artist's beret, ((detailed)), by Alphonse Mucha", "ugly, fat, [blurry]", 965400086, 20, 7.0, 512, 768,
            (LoraChoice(Path("glass.safetensors"), 0.8, 0.5), LoraChoice(Path("ink.safetensors"), 0.7, 0.7)),
            sampler="DPM++ 2M Karras",
        ),
        "some_base",
    )  # fmt: skip


END = "Steps: 2, Sampler: Euler, CFG scale: 5, Seed: 8, Size: 64x96"


@pytest.mark.parametrize("text", [f"a fox\nNegative prompt: dog\n{END}\n", f"a fox\r\nNegative prompt: dog\r\n{END}\r\n\r\n"])
def test_ends_of_lines_are_no_part_of_a_recipe(text: str) -> None:
    assert read_infotext(text) == (Request("a fox", "dog", 8, 2, 5.0, 64, 96), "")


def test_a_lora_is_known_by_its_name_whatever_folder_a_tag_names() -> None:
    """Forge and ComfyUI name folders, Windows with other slashes."""
    request, _ = read_infotext(f"a <lora:styles/ink_v1.5:0.7>, b <lora:my\\old\\glass:-.5>\n{END}")
    assert request.loras == (
        LoraChoice(Path("ink_v1.5.safetensors"), 0.7, 0.7),
        LoraChoice(Path("glass.safetensors"), -0.5, -0.5),
    )


def test_what_others_add_to_a_recipe_does_no_harm() -> None:
    more = (
        'Model: "x, \\"y\\"", VAE: "\\q", Hashes: {"model": "1a"}, Civitai resources: [{"name":"Size: 9x9, Seed: 3"}], RNG: CPU'
    )
    assert read_infotext(f"a\n{END}, {more}") == (Request("a", "", 8, 2, 5.0, 64, 96), 'x, "y"')


DAMAGED = (
    r'"{\"steps\": 2.5}"',
    r'"{\"prompt\": 5}"',
    r'"{\"sampler\": [1]}"',
    r'"{\"equal_strength\": \"no\"}"',
    f'"{"[" * 100_000}"',
    r'"{\"loras\": 5}"',
    r'"{\"steps\": \"many\"}"',
    r'"{\"colour\": 1}"',
    r'"[]"',
    '"{"',
    r'"{\"loras\": [[\"a\", NaN, 1]]}"',
)


@pytest.mark.parametrize("text", ["", "a house", *(f"{infotext(Request('a'), 'starter')}, Impasto: {end}" for end in DAMAGED)])
def test_what_is_no_recipe_is_told_of_in_a_sentence(text: str) -> None:
    with pytest.raises(UsageError, match=r"damaged|must be numbers"):
        read_infotext(text)


def test_the_recipe_of_a_picture_finds_its_loras_again(tmp_path: Path) -> None:
    asked = Request("a", loras=(A, B.with_parts("@style")))
    write_png(tmp_path / "a.png", Image.new("RGB", (4, 4)), infotext(asked, "starter"))
    (tmp_path / "loras").mkdir()
    (tmp_path / "loras" / B.path).touch()
    found, base = recipe_of(tmp_path / "a.png", [tmp_path / "none", tmp_path / "loras"])
    assert base == "starter"
    assert found == Request("a", loras=(A, replace(asked.loras[1], path=tmp_path / "loras" / "b c.safetensors")))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(side: int, more: bytes) -> bytes:
    """A PNG that says how large it is, and no more than that."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + more + chunk(b"IEND", b"")


def test_a_recipe_does_not_say_where_to_look(tmp_path: Path) -> None:
    """It may be a stranger's: a path on a server would be asked for there."""
    asked = json.dumps(json.dumps({"loras": [[str(tmp_path / "a.safetensors"), 1, 1]]}))
    write_png(tmp_path / "a.png", Image.new("RGB", (4, 4)), f"a\n{END}, Impasto: {asked}")
    (tmp_path / "a.safetensors").touch()
    request, _ = recipe_of(tmp_path / "a.png", [tmp_path / "none"])
    assert request.loras == (LoraChoice(Path("a.safetensors")),)


@pytest.mark.parametrize(
    "place", ["/models/oil.safetensors", r"\\server\models\oil.safetensors", "C:/oil", "~/oil", "//s/m/oil"]
)
def test_a_recipe_names_no_base_by_its_folder(place: str) -> None:
    asked = json.dumps(json.dumps({"base": place}))
    assert read_infotext(f"a\n{END}, Impasto: {asked}")[1] == "oil"


def test_a_jpeg_is_told_of(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.jpg")
    with pytest.raises(UsageError, match=r"a\.jpg carries no recipe"):
        recipe_of(tmp_path / "a.jpg", [])


def test_a_picture_without_a_recipe_is_told_of(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    with pytest.raises(UsageError, match=r"a\.png carries no recipe"):
        recipe_of(tmp_path / "a.png", [])
    (tmp_path / "b.png").write_text("no picture")
    (tmp_path / "huge.png").write_bytes(png(100_000, b""))
    (tmp_path / "blown up.png").write_bytes(png(4, chunk(b"zTXt", b"parameters\0\0" + zlib.compress(bytes(2**22)))))
    for name in ("b.png", "huge.png", "blown up.png"):
        with pytest.raises(UsageError, match=f"{name} is no picture"):
            recipe_of(tmp_path / name, [])
    with pytest.raises(UsageError, match=r"There is no file .*gone\.png"):
        recipe_of(tmp_path / "gone.png", [])


def test_pictures_that_were_drawn_here_are_known(tmp_path: Path) -> None:
    picture = Image.new("RGB", (4, 4))
    for number, (asked, base) in enumerate((asked, base) for asked in RECIPES.values() for base in ("starter", "a,b: c")):
        write_png(tmp_path / f"{number}.png", picture, infotext(asked, base))
        assert is_own(tmp_path / f"{number}.png")
    theirs = "a fox\nSteps: 2, Sampler: Euler, CFG scale: 5, Seed: 8, Size: 64x96, Model hash: 31e35c80fc, Model: sdxl"
    for text in (theirs, "a letter"):
        write_png(tmp_path / "theirs.png", picture, text)
        assert not is_own(tmp_path / "theirs.png")
    picture.save(tmp_path / "bare.png")
    assert not any(is_own(tmp_path / name) for name in ("bare.png", "gone.png", "."))


def test_a_lora_at_weight_zero_is_no_part_of_the_recipe() -> None:
    asked = Request("a house", loras=(LoraChoice(Path("glass.safetensors"), 0.0, 0.0),))
    assert infotext(asked, "starter") == infotext(Request("a house"), "starter")


def test_the_picture_carries_its_recipe(tmp_path: Path) -> None:
    write_png(tmp_path / "new" / "a.png", Image.new("RGB", (4, 4), "red"), "ein Häuschen, 東京")
    with Image.open(tmp_path / "new" / "a.png") as picture:
        assert picture.info["parameters"] == "ein Häuschen, 東京"
        assert picture.getpixel((0, 0)) == (255, 0, 0)


def test_a_full_disk_leaves_the_older_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "a.png"
    write_png(path, Image.new("RGB", (4, 4), "red"), "")
    before = path.read_bytes()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match=r"Could not write .*a\.png: the disk is full"):
        write_png(path, Image.new("RGB", (4, 4), "blue"), "")
    assert path.read_bytes() == before
