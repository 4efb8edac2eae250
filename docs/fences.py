"""Shows the examples of docstrings as code, however a docstring sets them apart."""

import re

import griffe

BLOCK = re.compile(r"(?m)^([ ]*)>>> .*\n?(?:\1(?=\S).*\n?)*")


class Fences(griffe.Extension):
    """Puts every run of `>>>` and what it prints into a fence of its own."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Changes the docstring of one object."""
        if obj.docstring and ">>> " in obj.docstring.value:
            text = re.sub(r"(?m)^Examples?:\n", "\n", obj.docstring.value)
            obj.docstring.value = BLOCK.sub(self.fence, text)

    @staticmethod
    def fence(block: re.Match[str]) -> str:
        """Writes one run, freed of its indentation."""
        code = re.sub(rf"(?m)^{block[1]}", "", block[0]).rstrip()
        return f"```pycon\n{code}\n```\n"
