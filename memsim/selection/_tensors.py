"""One tensor among those of its network: the parts of its name and what stands beside it."""

import functools
import re
from collections.abc import Mapping
from typing import Any

from memsim.selection.matrices import Reading

__all__ = ["Tensor"]

_SUFFIX = re.compile(r"(/\.ATTRIBUTES/VARIABLE_VALUE|[./](raw_)?value|:\d+)$")
_SCANNED = re.compile(
    r"(?i)^(layers?|h|(\w*_)?(layers|blocks|stack)|blocks?|scan\w*|\w*layer_stack\w*|layer_scan"
    r"|encoderblock|decoderblock|repeat(ed)?|stack\w*)$"
)
_EXPERTS = re.compile(r"(?i)^(\w*_)?experts?$|moe")
_NUMBERED_EXPERT = re.compile(r"(?i)experts?_?\d+$")


class Tensor:
    """A tensor of a network, as the rules by name see it.

    Attributes:
      name, shape: of the tensor; the name without what files add to it (`:0`, a trailing `value`).
      leaves: all tensors of the network, by name.
      role: the last part of the name: `weight`, `kernel`, ...
      module: the last part before it that is not a number, `` if there is none.
      numbered: whether a number stands between the two.
    """

    def __init__(self, name: str, shape: tuple[int, ...], leaves: Mapping[str, Any]) -> None:
        self.full_name, self.shape, self.leaves = name, shape, leaves
        self.is_keras = bool(re.search(r":\d+$", name))
        self.name = _SUFFIX.sub("", _SUFFIX.sub("", name))
        # numbers tell modules apart, not what they are
        *self.path, self.role = re.split(r"[./]", self.name)
        words = [part for part in self.path if not part.isdigit()]
        self.module = words[-1] if words else ""
        self.numbered = bool(self.path) and self.path[-1].isdigit()

    def _counts(self, at: int) -> bool:
        """Says whether the part of the path there stands for all of its kind, as it has no
        number.
        """
        after = self.path[at + 1] if at + 1 < len(self.path) else ""
        return not after.isdigit()

    @functools.cached_property
    def _scan(self) -> int | None:
        """The place in the path of what is scanned over."""
        places = (at for at, part in enumerate(self.path) if _SCANNED.match(part))
        return next((at for at in places if self._counts(at)), None)

    @functools.cached_property
    def scanned(self) -> int:
        """The number of axes, 0 or 1, along which layers are stacked, as the name says."""
        return int(self._scan is not None)

    @functools.cached_property
    def experts(self) -> int:
        """The number of axes, 0 or 1, along which experts are stacked, as the name says."""
        if any(_NUMBERED_EXPERT.search(part) for part in self.path):
            return 0
        return int(any(_EXPERTS.search(p) and self._counts(i) for i, p in enumerate(self.path)))

    @functools.cached_property
    def stacks_first(self) -> bool:
        """Says whether layers are stacked along the first axis, as far as their tensors tell."""
        prefix = re.match(
            r"[./]".join(map(re.escape, self.path[: (self._scan or 0) + 1])), self.name
        )
        assert prefix is not None  # noqa: S101
        # all tensors under what is scanned have its axis
        shapes = [
            tuple(leaf.shape)
            for name, leaf in self.leaves.items()
            if name.startswith(prefix.group()) and len(getattr(leaf, "shape", ())) > 0
        ]
        first = len({shape[0] for shape in shapes}) == 1
        second = len({shape[1] if len(shape) > 1 else None for shape in shapes}) == 1
        # where both axes are common to all, layers are fewer than features
        return first and (not second or self.shape[0] < self.shape[1])

    @functools.cached_property
    def bias_shape(self) -> tuple[int, ...] | None:
        """The shape of the bias beside the tensor, without trailing ones; None without one."""
        # `:0` and `value` stay behind the name
        roles = {"weight": "bias", "kernel": "bias", "w": "b"}
        role = roles.get(self.role, f"{self.role}_bias")
        at = self.full_name.rindex(self.role)
        name = f"{self.full_name[:at]}{role}{self.full_name[at + len(self.role) :]}"
        if name not in self.leaves:
            return None
        shape = list(self.leaves[name].shape)
        while len(shape) > 1 and shape[-1] == 1:
            shape.pop()
        return tuple(shape)

    def fits(self, reading: Reading) -> bool:
        """Says whether the bias beside the tensor is one of such outputs."""
        kept = sorted((*reading.axes, *reading.stacked))
        return self.bias_shape == tuple(self.shape[axis] for axis in kept)

    def beside(self, role: str) -> bool:
        """Says whether there is a tensor, or a module, of that name beside this one."""
        start = self.full_name.rindex(self.role)
        prefix = self.full_name[:start] + role
        return any(re.match(re.escape(prefix) + r"($|[./])", name) for name in self.leaves)

    @property
    def points(self) -> bool:
        """Says whether the window is a point in every direction, so that [out, in, ...] it must
        be.
        """
        return len(self.shape) > 2 and set(self.shape[2:]) == {1}

    @staticmethod
    def is_window(sizes: tuple[int, ...]) -> bool:
        """Says whether sizes are those of a window of a convolution: the same in all directions."""
        return len(set(sizes)) == 1 and len(sizes) > 1 and sizes[0] <= 32
