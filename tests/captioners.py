"""Tiny random models that write captions, in the form of the real ones: a folder with configs, tokenizer and weights."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import torch

WORDS = ("a", "red", "house", "river", "woman", "with", "boat", "sky", "tree", "cat")


def save_florence(folder: Path, seed: int = 0) -> Path:
    """A Florence-2 of four narrow stages, for pictures of 64 pixels."""
    from transformers import (
        BartConfig,
        BartTokenizer,
        CLIPImageProcessorPil,
        Florence2Config,
        Florence2ForConditionalGeneration,
        Florence2Processor,
    )

    letters = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "<image>", *"\u0120abcdefghijklmnopqrstuvwxyzWD?.,"]
    tokenizer = BartTokenizer(
        vocab={letter: number for number, letter in enumerate(letters)}, merges=[],
        extra_special_tokens={"image_token": "<image>"},
    )  # fmt: skip
    pictures = CLIPImageProcessorPil(size={"height": 64, "width": 64}, do_center_crop=False)
    pictures.image_seq_length = 5
    widths = (8, 8, 16, 16)
    vision = {
        "embed_dim": widths, "num_heads": (1, 1, 2, 2), "num_groups": (1, 1, 2, 2), "depths": (1, 1, 1, 1), "window_size": 2,
        "projection_dim": 16, "max_position_embeddings": 10,
    }  # fmt: skip
    text = BartConfig(
        vocab_size=len(letters), d_model=16, encoder_layers=1, decoder_layers=1, encoder_ffn_dim=16, decoder_ffn_dim=16,
        encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=400,
        forced_eos_token_id=2, decoder_start_token_id=2,
    )  # fmt: skip
    torch.manual_seed(seed)
    config = Florence2Config(text_config=text, vision_config=vision, image_token_id=5)
    model = Florence2ForConditionalGeneration(config)
    spread(model)
    model.generation_config.update(num_beams=1, decoder_start_token_id=2, eos_token_id=2, pad_token_id=1, bos_token_id=0)
    model.save_pretrained(folder)
    Florence2Processor(pictures, tokenizer).save_pretrained(folder)
    return folder


def save_blip(folder: Path, seed: int = 0) -> Path:
    """A BLIP of one layer, for pictures of 32 pixels, which knows `WORDS`."""
    from transformers import BertTokenizer, BlipConfig, BlipForConditionalGeneration, BlipImageProcessorPil, BlipProcessor

    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(vocab)})
    last = len(vocab)  # the real ones too begin with a token that their tokenizer does not know
    text = {
        "vocab_size": len(vocab) + 1, "hidden_size": 16, "encoder_hidden_size": 16, "intermediate_size": 16,
        "projection_dim": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64,
        "bos_token_id": last, "eos_token_id": 3, "sep_token_id": 3, "pad_token_id": 0,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "image_size": 32,
        "patch_size": 16, "initializer_range": 0.02, "projection_dim": 16,
    }  # fmt: skip
    torch.manual_seed(seed)
    model = BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=vision, projection_dim=16))
    spread(model)
    model.save_pretrained(folder)
    BlipProcessor(BlipImageProcessorPil(size={"height": 32, "width": 32}), tokenizer).save_pretrained(folder)
    return folder


TAGS = (("general", 9), ("explicit", 9), ("long_hair", 0), ("^_^", 0), ("red_hat", 0), ("miku_(cat)", 4), ("nobody", 4))
"""Names and categories of the tiny tagger."""


def save_tagger(folder: Path, side: int = 448) -> Path:
    """A tagger whose scores are `MIXING` times the mean of blue, green and red in the picture's middle."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    folder.mkdir(parents=True, exist_ok=True)
    middle = [numpy_helper.from_array(np.array(edge, np.int64), name) for name, edge in
              (("begin", [side // 4, side // 4]), ("end", [3 * side // 4, 3 * side // 4]), ("axes", [1, 2]))]  # fmt: skip
    mixing = numpy_helper.from_array(MIXING, "mixing")
    nodes = [
        helper.make_node("Slice", ["pictures", "begin", "end", "axes"], ["cut"]),
        helper.make_node("ReduceMean", ["cut", "axes"], ["means"], keepdims=0),
        helper.make_node("MatMul", ["means", "mixing"], ["scores"]),
    ]
    taken = helper.make_tensor_value_info("pictures", TensorProto.FLOAT, ["N", side, side, 3])
    given = helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["N", len(TAGS)])
    graph = helper.make_graph(nodes, "tagger", [taken], [given], [*middle, mixing])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, str(folder / "model.onnx"))
    with (folder / "selected_tags.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["tag_id", "name", "category", "count"])
        rows.writerows([number, name, category, 1] for number, (name, category) in enumerate(TAGS))
    return folder


MIXING = np.array(
    [  # general, explicit, long_hair, ^_^, red_hat, miku_(cat), nobody
        [1.0, 1.0, 0.36, 0.34, 0.0, 0.0, 0.84],  # blue
        [1.0, 1.0, 0.0, 0.9, 0.0, 0.86, 0.0],  # green
        [1.0, 1.0, 0.4, 0.0, 0.5, 0.0, 0.0],  # red
    ],
    np.float32,
) / np.float32(255)
"""How much each channel, 0 to 255, gives to the score of each tag."""


def spread(model: torch.nn.Module) -> None:
    """Larger random weights, so that the text depends on the picture."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.4)
