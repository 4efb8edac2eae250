"""Reads docstrings as the house writes them: examples, and arguments that share a line."""

import re

import griffe

SHARED = re.compile(r"(?m)^ +\w+(?:, \w+)+(?=: )")  # a, b: what both are
BLOCK = re.compile(r"(?m)^([ ]*)>>> .*\n?(?:\1(?=\S).*\n?)*")


class House(griffe.Extension):
    """Puts every example into a fence, and keeps names that share a line together."""

    def on_object(self, *, obj: griffe.Object, **_: object) -> None:
        """Changes the docstring of one object."""
        if obj.docstring:
            text = re.sub(r"(?m)^Examples?:\n", "\n", obj.docstring.value)
            # after a plain space the parser would look for a type
            text = SHARED.sub(lambda names: names[0].replace(", ", ",\xa0"), text)
            obj.docstring.value = BLOCK.sub(self.fence, text)

    @staticmethod
    def fence(block: re.Match[str]) -> str:
        """Writes one run, freed of its indentation."""
        code = re.sub(rf"(?m)^{block[1]}", "", block[0]).rstrip()
        return f"```pycon\n{code}\n```\n"
