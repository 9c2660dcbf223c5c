"""Files that are none, too many, too large, or not what their names say."""

import json
import os
import pickle
import shutil
import socket
import struct
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from tests.unit.evaluation.submissions.zoo.spoiling import (
    INDEX,
    WHOLE,
    Animal,
    Places,
    headed,
    join,
    sharded,
    weighted,
    written,
)

EMBEDDING, NORM = "model.embed_tokens.weight", "model.norm.weight"


def _fill(value: float, name: str = EMBEDDING, dtype: torch.dtype | None = None) -> Any:
    def change(weights: dict[str, torch.Tensor]) -> None:
        weights[name] = torch.full_like(weights[name], value, dtype=dtype)

    return weighted(change)


def _cast(dtype: torch.dtype) -> Any:
    return weighted(lambda weights: weights.update({EMBEDDING: torch.zeros(32, 16).to(dtype)}))


def _linked(folder: Path, name: str, target: Path) -> None:
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(target)


def _socket(folder: Path) -> None:
    here = os.getcwd()
    os.chdir(folder)  # a path of a socket may not be long
    try:
        with socket.socket(socket.AF_UNIX) as one:
            one.bind("tokenizer.model")
    finally:
        os.chdir(here)


def _hole(folder: Path, name: str = WHOLE) -> None:
    os.truncate(folder / name, 10 * 2**30)


def _hole_that_is_a_tensor(folder: Path) -> None:
    join(folder / WHOLE, {EMBEDDING: {"dtype": "F32", "shape": [2**29, 5], "data_offsets": [0, 5 * 2**31]}}, b"")
    _hole(folder)


def _move(name: str, by: int, span: int = 0) -> Any:
    def change(header: dict[str, Any], data: bytes) -> None:
        begin, end = header[name]["data_offsets"]
        header[name]["data_offsets"] = [begin + by, end + by + span]

    return headed(change)


def _says_twice(folder: Path) -> None:
    text = (folder / WHOLE).read_bytes()
    end = 8 + struct.unpack("<Q", text[:8])[0]
    again = (
        text[8:end].decode().rstrip()[:-1] + ',"model.norm.weight":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}}'
    )
    join(folder / WHOLE, again, text[end:])


def _many(folder: Path) -> None:
    for number in range(1001):
        (folder / f"{number}.safetensors").touch()


def _rename(index: dict[str, str], folder: Path) -> None:
    (folder / "model-2.safetensors").rename(folder / "extra.bin")


def _twice_in_two(index: dict[str, str], folder: Path) -> None:
    second = load_file(folder / "model-2.safetensors")
    first = load_file(folder / "model-1.safetensors")
    name = next(iter(first))
    save_file(second | {name: first[name] + 1}, folder / "model-2.safetensors")


def _without(name: str) -> Any:
    def change(index: dict[str, str], folder: Path) -> None:
        rest = load_file(folder / "model-2.safetensors")
        del rest[name], index[name]
        save_file(rest, folder / "model-2.safetensors")

    return change


def _whole_again(index: dict[str, str], folder: Path) -> None:
    save_file({"a": torch.zeros(2)}, folder / WHOLE)


ODD = "no part of a model that is known here"


def animals(places: Places) -> dict[str, Animal]:
    """By name."""
    seed, other = places.seed, places.other
    return {
        "a link for the weights": (lambda f: _linked(f, WHOLE, other / WHOLE), "holds a link, model.safetensors"),
        "a link for the config": (lambda f: _linked(f, "config.json", seed / "config.json"), "a link, config.json"),
        "a link to a folder": (lambda f: _linked(f, "more", other), "holds a link, more"),
        "a link to nothing": (lambda f: _linked(f, "vocab.json", Path("/nowhere")), "holds a link, vocab.json"),
        "a pipe for the weights": (
            lambda f: (f / WHOLE).unlink() or os.mkfifo(f / WHOLE), "holds a pipe, socket or device, model.safetensors"
        ),
        "a pipe for the config": (
            lambda f: (f / "config.json").unlink() or os.mkfifo(f / "config.json"), "a pipe, .* config.json"
        ),
        "a socket": (_socket, "holds a pipe, socket or device, tokenizer.model"),
        "a folder": (lambda f: (f / "more").mkdir(), "holds a folder, more"),
        "a folder for the weights": (
            lambda f: (f / WHOLE).unlink() or (f / WHOLE).mkdir(), "holds a folder, model.safetensors"
        ),
        "a checkpoint inside": (lambda f: shutil.copytree(other, f / "checkpoint-5"), "holds a folder, checkpoint-5"),
        "a name that is no text": (written(os.fsdecode(b"note-\xff.json"), "{}"), "odd name: 'note-.udcff.json'"),
        "a name with an escape": (written("\x1b[31m.json", "{}"), "odd name: '.x1b\\[31m.json'"),
        "a name of two lines": (written("a\nb.json", "{}"), "odd name: 'a.nb.json'"),
        "too many files": (_many, "holds more than 1,000 files"),
        "a model's code": (written("modeling_llama.py", "print(1)"), "holds modeling_llama.py: only safetensors"),
        "code for writing": (written("generate.py", "print(1)"), "holds generate.py: .* nothing that runs code"),
        "a pickle": (written("pytorch_model.bin", pickle.dumps(print)), "holds pytorch_model.bin: only safetensors"),
        "a trainer's pickle": (written("training_args.bin", b"x"), "holds training_args.bin"),
        "a library": (written("kernel.so", b"\x7fELF"), "holds kernel.so"),
        "a program without an end": (written("run", "#!/bin/sh"), f"holds run, which is {ODD}"),
        "a file of another library": (written("model.gguf", b"GGUF"), f"holds model.gguf, which is {ODD}"),
        "a kernel's list": (written("kernels.lock", "[]"), f"holds kernels.lock, which is {ODD}"),
        "a hidden file": (written(".netrc", "x"), f"holds .netrc, which is {ODD}"),
        "10 GB that are not there": (_hole, "its files claim 10.7 GB, more than the 0.3 GB"),
        "10 GB of one tensor": (_hole_that_is_a_tensor, "its files claim 10.7 GB"),
        "a tokenizer of 10 GB": (lambda f: _hole(f, "tokenizer.json"), "its files claim 10.7 GB"),
        "no weights": (lambda f: (f / WHOLE).unlink(), "model.safetensors is not there"),
        "no config": (lambda f: (f / "config.json").unlink(), "config.json is missing"),
        "empty weights": (written(WHOLE, b""), "it is cut off, or no safetensors file"),
        "a pickle for weights": (written(WHOLE, pickle.dumps({"a": 1})), "it is cut off, or no safetensors file"),
        "a zip for weights": (written(WHOLE, b"PK\x03\x04" + bytes(500)), "model.safetensors cannot be read"),
        "weights that are text": (written(WHOLE, b"\x08\0\0\0\0\0\0\0garbage!"), "model.safetensors cannot be read"),
        "a header that is a list": (lambda f: join(f / WHOLE, "[]", b""), "it holds no keys and values"),
        "a header of 2^60 bytes": (written(WHOLE, struct.pack("<Q", 2**60) + b"{}"), "cut off, or no safetensors"),
        "a header of 20 MB": (lambda f: join(f / WHOLE, " " * 20_000_000, b""), "its header claims 20,000,000 bytes"),
        "a header that is deep": (lambda f: join(f / WHOLE, "[" * 90_000, b""), "model.safetensors cannot be read"),
        "a number that is long": (
            lambda f: join(f / WHOLE, '{"a": ' + "9" * 100_000 + "}", b""), "model.safetensors cannot be read"
        ),
        "a name said twice": (_says_twice, "it says model.norm.weight twice"),
        "weights cut off": (lambda f: os.truncate(f / WHOLE, (f / WHOLE).stat().st_size - 7), "it is cut off"),
        "more bytes than tensors": (
            lambda f: (f / WHOLE).write_bytes((f / WHOLE).read_bytes() + bytes(9)) and None, "bytes that are no tensor"
        ),
        "tensors that overlap": (_move(NORM, -4), "overlaps another"),
        "a gap between tensors": (_move(NORM, 4), "leaves a gap before it|is cut off|overlaps"),
        "too few bytes for its shape": (_move(NORM, 0, -4), "has not the bytes that its shape needs"),
        "a shape below nothing": (
            headed(lambda h, d: h[NORM].update(shape=[-16])), "what it says of model.norm.weight is no tensor"
        ),
        "a shape that overflows": (
            headed(lambda h, d: h[NORM].update(shape=[2**40, 2**40])), "has not the bytes that its shape needs"
        ),
        "a shape of words": (headed(lambda h, d: h[NORM].update(shape=["x"])), "is no tensor"),
        "a dtype that is none": (headed(lambda h, d: h[NORM].update(dtype="F7")), "is stored as F7"),
        "a dtype that is a list": (headed(lambda h, d: h[NORM].update(dtype=["F32"])), r"is stored as \['F32'\]"),
        "a markup for a name": (
            weighted(lambda w: w.update({"[/bold]": torch.zeros(2)})), r"model.safetensors holds \[/bold\], which"
        ),
        "a name of a megabyte": (
            weighted(lambda w: w.update({"x" * 2**20: torch.zeros(2)})), "model.safetensors holds xxx"
        ),
        "a weight that is missing": (weighted(lambda w: w.pop(NORM)), "lacks model.norm.weight: they would be drawn"),
        "every weight missing": (weighted(lambda w: w.clear()), r"lacks .* and 17 more: they would be drawn at random"),
        "a weight too many": (
            weighted(lambda w: w.update({"model.layers.2.mlp.up_proj.weight": torch.zeros(32, 16)})),
            "holds model.layers.2.mlp.up_proj.weight, which the seed has not",
        ),
        "a bias too many": (
            weighted(lambda w: w.update({"model.layers.0.self_attn.q_proj.bias": torch.zeros(16)})),
            "q_proj.bias, which the seed has not",
        ),
        "another shape": (weighted(lambda w: w.update({EMBEDDING: torch.zeros(32, 24)})), r"has shape \(32, 24\)"),
        "more words": (weighted(lambda w: w.update({EMBEDDING: torch.zeros(33, 16)})), r"has shape \(33, 16\)"),
        "a head of its own": (
            weighted(lambda w: w.update({"lm_head.weight": w[EMBEDDING] + 1})), "one weight in the seed, and two here"
        ),
        "not a number": (_fill(float("nan")), "model.embed_tokens.weight holds values that are not finite"),
        "infinite": (_fill(float("inf"), NORM), "model.norm.weight holds values that are not finite"),
        "one value that is none": (
            weighted(lambda w: w[EMBEDDING].view(-1)[-1:].fill_(float("-inf"))), "holds values that are not finite"
        ),
        "finite in 64 bits alone": (_fill(1e300, NORM, torch.float64), "not finite in float32"),
        "8 bits of float": (_cast(torch.float8_e4m3fn), "is stored as F8_E4M3"),
        "8 other bits of float": (_cast(torch.float8_e5m2), "is stored as F8_E5M2"),
        "8 bits of integer": (_cast(torch.int8), "is stored as I8"),
        "64 bits of integer": (_cast(torch.int64), "is stored as I64"),
        "true and false": (_cast(torch.bool), "is stored as BOOL"),
        "complex": (_cast(torch.complex64), "is stored as C64"),
        "an index without its shard": (
            sharded(lambda i, f: (f / "model-2.safetensors").unlink()), "names model-2.safetensors, which is not there"
        ),
        "an index that leads out": (
            sharded(lambda i, f: i.update({NORM: "../other/model.safetensors"})), "names ../other/model.safetensors"
        ),
        "an index to the root": (
            sharded(lambda i, f: i.update({NORM: str(other / WHOLE)})), "names /.*model.safetensors, which is not there"
        ),
        "an index of nothing": (sharded(lambda i, f: i.clear()), "index.json lists no weights"),
        "an index of numbers": (sharded(lambda i, f: i.update({NORM: 7})), "index.json lists no weights"),
        "an index of another tensor": (
            sharded(lambda i, f: i.update({"model.more": "model-2.safetensors"})), "lacks model.more, which"
        ),
        "an index that says the wrong shard": (
            sharded(lambda i, f: i.update({NORM: "model-1.safetensors"})), "model-1.safetensors lacks model.norm"
        ),
        "an index that hides a tensor": (sharded(lambda i, f: i.pop(NORM)), "holds model.norm.weight, which .* not"),
        "an index and shards without a tensor": (sharded(_without(NORM)), "lacks model.norm.weight"),
        "an index that is broken": (lambda f: sharded()(f) or written(INDEX, "{")(f), "index.json cannot be read"),
        "an index of 17 MB": (
            lambda f: sharded()(f) or written(INDEX, json.dumps({"weight_map": {"x" * 17 * 2**20: "y"}}))(f),
            "index.json is longer than",
        ),
        "a shard that is a program": (sharded(_rename), "holds extra.bin"),
        "a tensor in two shards": (sharded(_twice_in_two), "is in model-1.safetensors and in model-2.safetensors"),
        "whole weights beside shards": (sharded(_whole_again), "model.safetensors lies beside the model's weights"),
        "weights in an unread file": (
            lambda f: save_file({"a": torch.zeros(2)}, f / "trunk.safetensors"), "trunk.safetensors lies beside"
        ),
        "shards beside whole weights": (
            lambda f: shutil.copy(other / WHOLE, f / "model-00001-of-00001.safetensors"), "lies beside the model's"
        ),
    }  # fmt: skip
