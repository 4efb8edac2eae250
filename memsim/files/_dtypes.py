"""The dtypes of files: which of them hold weights, and why the others stay digital."""

import math
import re

import numpy as np

# Every dtype of safetensors: its bits and its name in NumPy (with ml_dtypes), None where it packs
# several numbers into a byte or holds none but scales. In the order in which the format sorts them.
SAFETENSORS: dict[str, tuple[int, str | None]] = {
    "BOOL": (8, "bool"),
    "F4": (4, None),
    "F6_E2M3": (6, None),
    "F6_E3M2": (6, None),
    "U8": (8, "uint8"),
    "I8": (8, "int8"),
    "F8_E5M2": (8, "float8_e5m2"),
    "F8_E4M3": (8, "float8_e4m3fn"),
    "F8_E8M0": (8, None),
    "F8_E4M3FNUZ": (8, "float8_e4m3fnuz"),
    "F8_E5M2FNUZ": (8, "float8_e5m2fnuz"),
    "I16": (16, "int16"),
    "U16": (16, "uint16"),
    "F16": (16, "float16"),
    "BF16": (16, "bfloat16"),
    "I32": (32, "int32"),
    "U32": (32, "uint32"),
    "F32": (32, "float32"),
    "C64": (64, "complex64"),
    "F64": (64, "float64"),
    "I64": (64, "int64"),
    "U64": (64, "uint64"),
}
SORTED = tuple(SAFETENSORS)

# dtypes of ml_dtypes, which an npz stores as bytes without a meaning (a name beside them says it)
EXTENDED = ("bfloat16", "float8_e5m2", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2fnuz")

# float8_e8m0fnu is written, but never read as numbers: it holds scales
_CODES = {name: code for code, (_, name) in SAFETENSORS.items() if name}
_CODES["float8_e8m0fnu"] = "F8_E8M0"


# what arrays of NumPy's kinds hold, where it is no weights
_DIGITAL = {
    "b": "truth values",
    "i": "whole numbers",
    "u": "whole numbers",
    "c": "complex numbers",
    "U": "text",
    "S": "text",
    "T": "text",
    "M": "dates",
    "m": "durations",
}


def dtype_named(name: str) -> np.dtype:
    """Finds the dtype of a NumPy or ml_dtypes name."""
    if name not in EXTENDED:
        return np.dtype(name)
    import ml_dtypes

    dtype: np.dtype = np.dtype(getattr(ml_dtypes, name))
    return dtype


def numpy_dtype(code: str) -> np.dtype | None:
    """Finds the dtype that reads a dtype of safetensors exactly; None if there is none."""
    name = SAFETENSORS.get(code, (8, None))[1]
    return dtype_named(name) if name else None


def safetensors_code(dtype: np.dtype) -> str | None:
    """Finds the dtype of safetensors that holds arrays of `dtype`; None if there is none."""
    return _CODES.get(dtype.name)


def bytes_of(code: str, shape: tuple[int, ...]) -> int | None:
    """Bytes of a tensor of safetensors; None where the dtype is not known.

    Raises:
      ValueError: no whole number of bytes.
    """
    if code not in SAFETENSORS:
        return None
    bits = SAFETENSORS[code][0] * math.prod(shape)
    if bits % 8:
        raise ValueError(f"{code} {list(shape)} is no whole number of bytes")
    return bits // 8


def why_digital(dtype: np.dtype | str) -> str | None:
    """Says why a tensor of this dtype is no weight matrix; None where it can be one.

    Args:
      dtype: of the array that was read, or the dtype that a `RawTensor` has in its file.
    """
    if isinstance(dtype, str):
        if dtype == "F8_E8M0":
            return "powers of two (F8_E8M0), which scale other tensors"
        if dtype in SAFETENSORS:
            return f"packed numbers ({dtype}), weights only with the scales that other tensors hold"
        if dtype[:1] in "<>=|":
            return f"extended precision ({np.dtype(dtype).name}), more than any chip here computes"
        return f"a dtype that memsim does not know ({dtype})"
    if dtype.names is not None:
        return "records of several fields"
    # the narrow numbers of ml_dtypes
    if re.match(r"u?int[124]$", dtype.name):
        return f"whole numbers ({dtype.name})"
    if dtype.name.startswith("float") and dtype.itemsize == 1 and dtype.name not in EXTENDED:
        return (
            f"narrow numbers ({dtype.name}), weights only with the scales that other tensors hold"
        )
    if dtype.kind == "V" and dtype.name not in EXTENDED:
        return f"bytes ({dtype.str}) whose dtype the file does not say; save it as .safetensors"
    kind = _DIGITAL.get(dtype.kind)
    return f"{kind} ({dtype.name})" if kind else None
