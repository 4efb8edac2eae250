"""Checkpoints made to harm whoever opens them: how they are made, opened, and refused in tests."""

import importlib
import itertools
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

SECONDS, MEGABYTES = 2, 300

# opens files in turn, their libraries imported before, and tells what each took
OPEN = """
import gc, importlib, json, sys, time
from memsim import open_checkpoint
for name in sys.argv[1].split():
    importlib.import_module(name)

def memory(what):
    text = open("/proc/self/status").read()
    return int(text.split(what + ":")[1].split()[0]) / 1000

for path in sys.argv[2:]:
    gc.collect()
    open("/proc/self/clear_refs", "w").write("5")  # the peak starts anew
    # of this process: what others do on the machine does not count
    before, start = memory("VmRSS"), time.process_time()
    try:
        source = open_checkpoint(path)
        for name in source.tensors:
            source.load(name)
        said = None
    except (ValueError, OSError) as error:
        said = str(error)
        del error
    took = time.process_time() - start
    print(json.dumps([path, said, took, memory("VmHWM") - before]), flush=True)
"""


class Hostile:
    """Hostile files of some kind: `makers` has what makes each, and the libraries that it takes."""

    def __init__(self):
        self.makers = {}

    def made_with(self, *libraries):
        """A maker of a file, called after what it is; it is skipped without these libraries."""

        def note(make):
            self.makers[make.__name__] = (make, libraries)
            return make

        return note

    def opened(self, here):
        """What was said of each file that can be made here, its seconds and megabytes."""
        wanted = set(itertools.chain(*(libraries for _, libraries in self.makers.values())))
        present = sorted(filter(there, wanted))
        paths = {}
        for name, (make, libraries) in self.makers.items():
            if not set(libraries) <= set(present):
                continue
            (here / name).mkdir()
            paths[str(make(here / name))] = name
        done = subprocess.run(
            [sys.executable, "-c", OPEN, " ".join(present), *paths],
            capture_output=True, text=True, cwd=here, timeout=300,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[1])},
        )  # fmt: skip
        found = {}
        for line in done.stdout.splitlines():
            path, *told = json.loads(line)
            found[paths[path]] = told
        assert not (here / "exploded").exists()
        return found, done.stderr

    def is_refused(self, name, found, errors):
        """Whether a file was refused in one line, at once and in little memory."""
        for library in self.makers[name][1]:
            pytest.importorskip(library)
        assert name in found, errors[-2000:]
        said, seconds, megabytes = found[name]
        assert said is not None, "it was opened, and all its tensors were read"
        assert said.startswith("`checkpoint` ")
        assert "\n" not in said
        assert len(said) < 700
        assert seconds < SECONDS
        assert megabytes < MEGABYTES
        return True


def there(library):
    try:
        importlib.import_module(library)
    except ImportError:
        return False
    return True


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def saved(folder, value, name="x.pth", **words):
    import torch

    torch.save(value, folder / name, **words)
    return folder / name


def zipped(path, members, compression=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def rewritten(path, change, compression=zipfile.ZIP_STORED):
    """An archive with other members: `change` gives those for the old ones."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return zipped(path, change(members), compression)


def overlapping(path, count, data):
    """An archive of many names for one member, whose bytes are there once."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", data)
        (info,) = archive.infolist()
        for number in range(count):
            other = zipfile.ZipInfo(f"x/data/{number}")
            for field in ("header_offset", "file_size", "compress_size", "CRC", "compress_type"):
                setattr(other, field, getattr(info, field))
            archive.filelist.append(other)
    return path
