"""How the layers of Keras multiply by their variables, by the classes that a file tells."""

import re
from collections.abc import Iterator, Mapping

# Layouts of the variables of a class, in order, by its name in files (`Conv2D` is `conv2d`).
_IN_OUT, _DIGITAL = ("in-out",), ("digital",)
_CLASSES: tuple[tuple[str, tuple[str, ...]], ...] = (
    (r"dense|conv[123]d", _IN_OUT),
    (r"depthwise_conv[12]d", ("depthwise",)),
    (r"separable_conv[12]d", ("depthwise", "in-out")),
    (r"conv[123]d_transpose", ("window-out-in",)),
    (r"(conv_)?(lstm|gru|simple_rnn)([123]d)?(_cell)?", ("in-out", "in-out")),
    (r"embedding", _DIGITAL),
    (r"(batch|layer|group|unit|rms|spectral)_normalization", _DIGITAL),
    (r"_?(query|key|value)_dense", ("in-heads-dim",)),
    (r"_?output_dense", ("heads-dim-out",)),
)

# the place of a variable in its layer, by its name in older files
_ROLES = {
    "kernel": 0, "depthwise_kernel": 0, "pointwise_kernel": 1, "recurrent_kernel": 1,
    "embeddings": 0,
}  # fmt: skip


class Layers:
    """The layers of a model, as its configuration lists them.

    Attributes:
      classes: class of a layer, in snake case, by its name.
      equations: of layers that are sums of products over named axes (EinsumDense).
    """

    def __init__(self, classes: Mapping[str, str], equations: Mapping[str, str]) -> None:
        self.classes, self.equations = classes, equations

    def layout(self, name: str, called: str, shape: tuple[int, ...]) -> str | None:
        """Says how a layer multiplies by a variable; None if the file does not tell.

        Args:
          name: path of the variable: `layers/conv2d_1/vars/0`, in older files
            `model_weights/front/front/kernel:0`.
          called: the name of its layer, which newer files have; else empty.
          shape: of the variable.
        """
        *path, last = name.split("/")
        role = re.sub(r":\d+$", "", last)
        if path[-1:] == ["vars"] and role.isdecimal():
            classes, at = self._newer(path[:-1], called), int(role)
        elif role in _ROLES:
            # the layer, or the layer within a layer, that is nearest
            called = next((part for part in reversed(path) if part in self.classes), "")
            classes, at = [self.classes.get(called, "")], _ROLES[role]
        else:
            return None
        for kind in classes:
            if kind == "einsum_dense" and called in self.equations and at == 0:
                return _of_equation(self.equations[called], len(shape))
            for pattern, layouts in _CLASSES:
                if re.fullmatch(pattern, kind):
                    fitting = layouts[at] if at < len(layouts) else "digital"
                    return fitting if _fits(kind, fitting, len(shape)) else None
        return None

    def _newer(self, path: list[str], called: str) -> list[str]:
        """Gives the classes that a layer may be of, the surest first.

        Layers in lists are called by their classes there; a layer that is an attribute has the name
        of that, and only the name that Keras made for it tells its class.
        """
        if not path:
            return []
        here = re.sub(r"_\d+$", "", path[-1])
        made = [self.classes[called]] if called in self.classes else []
        attention = len(path) > 1 and "attention" in path[-2]
        if path[-2:-1] == ["layers"] or (attention and here.endswith("_dense")):
            return [here]
        return made + ([re.sub(r"_\d+$", "", called)] if called else [])


def _fits(kind: str, layout: str, axes: int) -> bool:
    """Says whether layers of a class have a variable of so many axes: a name may mislead."""
    if layout == "digital":
        return True
    if window := re.search("([123])d", kind):
        return axes == int(window.group(1)) + 2
    return axes == (3 if "heads" in layout else 2)


def layers_of(config: object) -> Layers:
    """Reads the layers of a model out of its configuration, those of models within it too.

    A configuration comes from strangers: it is walked, and nothing that it names is made.
    """
    classes: dict[str, str] = {}
    equations: dict[str, str] = {}
    twice: set[str] = set()
    for kind, settings in _entries(config):
        name = settings.get("name")
        if not isinstance(name, str):
            continue
        if classes.setdefault(name, _snake(kind)) != _snake(kind):
            twice.add(name)
        equation = settings.get("equation")
        if isinstance(equation, str) and equations.setdefault(name, equation) != equation:
            twice.add(name)
    # a name of two layers that differ tells neither
    for name in twice:
        classes.pop(name)
        equations.pop(name, None)
    return Layers(classes, equations)


def _entries(config: object) -> Iterator[tuple[str, Mapping[str, object]]]:
    """Goes through the objects of a configuration that have a class and settings."""
    left = [config]
    while left:
        entry = left.pop()
        if isinstance(entry, Mapping):
            kind, settings = entry.get("class_name"), entry.get("config")
            if isinstance(kind, str) and isinstance(settings, Mapping):
                yield kind, settings
            left += entry.values()
        elif isinstance(entry, list):
            left += entry


def _snake(name: str) -> str:
    """Writes the name of a class as files do: `Conv2DTranspose` as `conv2d_transpose`."""
    name = re.sub(r"\W+", "", name.rpartition(">")[2])
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _of_equation(equation: str, axes: int) -> str | None:
    """Reads the layout of a kernel out of `abc,cd->abd`: an axis of the output is an output."""
    match = re.fullmatch(r"(?:\.\.\.)?(\w+),(\w+)->(?:\.\.\.)?(\w+)", equation.replace(" ", ""))
    if not match or len(match.group(2)) != axes:
        return None
    given, kernel, output = match.groups()
    # an axis of both operands that stays is one of independent matrices
    words = {
        (True, False): "in", (False, True): "out", (True, True): "stacked",
    }  # fmt: skip
    found = [words.get((letter in given, letter in output)) for letter in kernel]
    return "-".join(map(str, found)) if {"in", "out"} <= set(found) and None not in found else None
