"""Files of PyTorch: state dicts that `torch.save` wrote, read without unpickling objects."""

import functools
import re
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from memsim.files._dtypes import dtype_named
from memsim.files._opening import (
    Checkpoint,
    Stored,
    as_checkpoint,
    check_members,
    check_shape,
    need_library,
    refusing,
)
from memsim.files.raw import RawTensor

SUFFIXES = (".pth", ".pt", ".bin", ".ckpt", ".th")
_REMEDY = "pip install torch"
_LONGEST_PICKLE = 2**24  # bytes, of names and shapes: numbers of tensors lie elsewhere
_OLDEST = (2, 6)  # before it, `weights_only` could be made to run code (CVE-2025-32434)

# where training scripts put the state dict, beside the optimizer and counts of epochs
_WRAPPERS = ("state_dict", "model_state_dict", "model")

# what the library says of an object that it does not make
_OBJECT = re.compile(r"(?:GLOBAL|global|Unsupported (?:class|operand)) (\S+)")

# dtypes of torch that NumPy computes with under another name, and those that no weight has
_SMALL_FLOATS = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
_RAW = {"float8_e8m0fnu": "F8_E8M0", "float4_e2m1fn_x2": "F4"}


def open_file(path: Path) -> Checkpoint:
    """Opens a file of PyTorch; tensors stay on the disk until they are asked for.

    Of tensors that are one and the same (tied weights) the first name is kept; metadata gives the
    others, as files of safetensors do.

    Raises:
      ValueError: it is truncated, no such file, or holds objects beside tensors.
    """
    tensors = named_tensors(path, load_file(path, lazily=True))
    stored: dict[str, Stored] = {}
    reasons: dict[str, str] = {}
    metadata, first = {"format": "pt"}, dict[Any, str]()
    limit = path.stat().st_size
    for name, tensor in tensors.items():
        code = str(tensor.dtype).removeprefix("torch.")
        if reason := _why_no_array(tensor):
            reasons[name] = f"{reason} ({code})"
            stored[name] = Stored(tuple(tensor.shape), f"torch.{code}", _refuse(path, name, reason))
            continue
        with refusing(path, "a PyTorch file"):
            check_shape(name, tuple(tensor.shape), tensor.element_size(), limit)
        place = (tensor.data_ptr(), tensor.dtype, tensor.shape, tensor.stride())
        if tensor.numel() and first.setdefault(place, name) != name:
            metadata[name] = first[place]
            continue
        dtype = _RAW.get(code) or dtype_named(code)
        stored[name] = Stored(tuple(tensor.shape), dtype, functools.partial(_load, tensor))
    return as_checkpoint(stored, metadata=metadata, reasons=reasons)


def load_file(path: Path, *, lazily: bool) -> Any:
    """Reads what a file holds: dictionaries, lists, numbers, texts and tensors, nothing else.

    Args:
      lazily: whether tensors stay on the disk, where the file allows it.
    """
    torch = need_library("torch", path, _REMEDY)
    if tuple(map(int, torch.__version__.split(".")[:2])) < _OLDEST:
        raise ValueError(
            f"`checkpoint` {path} is not read with torch {torch.__version__}, which can be made to "
            "run code that a file brings: pip install --upgrade torch"
        )
    with path.open("rb") as file:
        start = file.read(4)
    zipped = start == b"PK\x03\x04"
    with refusing(path, "a PyTorch file"):
        if not zipped and start[:1] != b"\x80":
            raise ValueError("it begins as no such file does")
        if zipped:
            with zipfile.ZipFile(path) as archive:
                _check_no_program(path, archive)
                check_members(path, archive)
                for info in archive.infolist():
                    if info.filename.endswith(".pkl") and info.file_size > _LONGEST_PICKLE:
                        raise ValueError(f"its pickle of {info.file_size} bytes is too long")
        try:
            with warnings.catch_warnings():  # of the library about itself, which users cannot mend
                warnings.simplefilter("ignore")
                return torch.load(
                    str(path), map_location="cpu", weights_only=True, mmap=zipped and lazily
                )
        except Exception as error:
            # the library's words take a page; the name of the object is in them
            if found := _OBJECT.search(str(error)):
                raise _holds_objects(path, found.group(1)) from error
            raise


def _check_no_program(path: Path, archive: zipfile.ZipFile) -> None:
    """Checks that an archive is none of TorchScript or of an exported program."""
    for name in archive.namelist():
        if re.search(r"(^|/)(constants\.pkl|code/|models/.*\.json$)", name):
            raise ValueError(
                f"`checkpoint` {path} is a program (of TorchScript or torch.export), not weights; "
                "save those of the model: torch.save(model.state_dict(), PATH)."
            )


def _holds_objects(path: Path, name: str) -> ValueError:
    name = "in another protocol" if name.isdecimal() else name  # an operation that torch lacks
    return ValueError(
        f"`checkpoint` {path} holds pickled objects ({name[:80]}), which memsim never unpickles; "
        "save its tensors alone: torch.save(model.state_dict(), PATH)."
    )


def named_tensors(path: Path, found: Any) -> dict[str, Any]:
    """Gives the tensors of a state dict by name, taken out of what scripts put around it.

    Raises:
      ValueError: there is no state dict, or two.
    """
    for _ in range(len(_WRAPPERS) + 1):
        if not isinstance(found, Mapping):
            break
        inside = [key for key in _WRAPPERS if _has_tensors(found.get(key))]
        if len(inside) > 1:
            raise ValueError(
                f"`checkpoint` {path} has weights in {' and '.join(map(repr, inside))}; save those "
                "that you mean alone: torch.save(model.state_dict(), PATH)."
            )
        if not inside:
            break
        found = found[inside[0]]
    tensors = dict(_flatten(path, found, "", set()))
    if not tensors:
        kind = type(found).__name__
        held = f"{kind} of {', '.join(map(repr, list(found)[:4]))}" if _is_dict(found) else kind
        raise ValueError(
            f"`checkpoint` {path} has no tensors by name ({held}); save those of the model: "
            "torch.save(model.state_dict(), PATH)."
        )
    return tensors


def _is_dict(found: Any) -> bool:
    return isinstance(found, Mapping) and bool(found)


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "data_ptr")


def _has_tensors(found: Any) -> bool:
    """Says whether this is a state dict, or a dictionary around one."""
    inner = found.values() if isinstance(found, Mapping) else ()
    return any(_is_tensor(x) or isinstance(x, Mapping) for x in inner)


def _flatten(path: Path, found: Any, prefix: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    """Goes through the tensors of dictionaries in dictionaries, names joined by `.`."""
    if not isinstance(found, Mapping):
        return
    # a dictionary may hold itself, or one that is held twice may double at every level
    if id(found) in seen:
        raise ValueError(
            f"`checkpoint` {path} has a dictionary {prefix.split('.')[-2]!r} that it holds "
            "elsewhere too; save one flat state dict."
        )
    seen.add(id(found))
    for key, value in found.items():
        if _is_tensor(value):
            yield f"{prefix}{key}", value
        elif prefix or str(key) not in ("optimizer", "optimizer_state_dict", "optimizers"):
            yield from _flatten(path, value, f"{prefix}{key}.", seen)


def _why_no_array(tensor: Any) -> str | None:
    """Says why no array can be made of a tensor; None where one can."""
    if tensor.device.type == "meta":
        return "a tensor without its numbers"
    if tensor.is_quantized:
        return "quantized numbers"
    if str(tensor.layout) != "torch.strided":
        return "a sparse tensor"
    code = str(tensor.dtype).removeprefix("torch.")
    if code not in (*_SMALL_FLOATS, *_RAW, *np.sctypeDict):
        return "numbers that NumPy does not have"
    return None


def _refuse(path: Path, name: str, reason: str) -> Any:
    def refuse() -> RawTensor:
        raise ValueError(
            f"`checkpoint` {path} holds `{name}`, {reason}, which memsim does not read; save it "
            "dense and in floating point."
        )

    return refuse


def _load(tensor: Any) -> np.ndarray | RawTensor:
    """Gives a tensor as an array, of the same bits."""
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    code = str(tensor.dtype).removeprefix("torch.")
    if code in _RAW:
        data = tensor.view(_torch().uint8).numpy().reshape(-1)
        shape = (*tensor.shape[:-1], 2 * tensor.shape[-1]) if code.endswith("x2") else tensor.shape
        return RawTensor(_RAW[code], tuple(shape), data)
    if code not in _SMALL_FLOATS:
        array: np.ndarray = tensor.numpy()
        return array
    # NumPy has these dtypes from ml_dtypes, of which torch knows nothing
    whole = _torch().int16 if tensor.element_size() == 2 else _torch().uint8
    small: np.ndarray = tensor.view(whole).numpy().view(dtype_named(code))
    return small


def _torch() -> Any:
    import torch

    return torch


def replace_tensors(out: Path, source: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Writes a file like `source` with other weights; what was tied stays tied."""
    torch = _torch()
    found = load_file(source, lazily=False)
    there = named_tensors(source, found)
    with torch.no_grad():
        for name, array in tensors.items():
            bits = array.view(_bits(array.itemsize)) if array.dtype.name in _SMALL_FLOATS else array
            there[name].copy_(torch.from_numpy(bits.copy()).view(there[name].dtype))
    torch.save(found, out)


def _bits(itemsize: int) -> type[np.generic]:
    """Finds the whole numbers that stand for floats which NumPy, or torch, lacks."""
    return np.int16 if itemsize == 2 else np.uint8
