"""Files of PyTorch made to harm whoever opens them."""

import pickle
import tarfile
import zipfile

import pytest
from hostile import Bomb, Hostile, overlapping, rewritten, saved

FILES = Hostile()


def small():
    import torch

    return {"a.weight": torch.ones(30, 30), "b.weight": torch.ones(3)}


@FILES.made_with("torch")
def torch_runs_code(folder):
    return saved(folder, {"a.weight": Bomb()})


@FILES.made_with("torch")
def torch_runs_code_in_an_old_file(folder):
    return saved(folder, {"a.weight": Bomb()}, "x.bin", _use_new_zipfile_serialization=False)


@FILES.made_with("torch")
def torch_is_a_bare_pickle(folder):
    (folder / "x.pt").write_bytes(pickle.dumps(Bomb()))
    return folder / "x.pt"


@FILES.made_with("torch")
def torch_with_a_compressed_bomb(folder):
    path = saved(folder, small())
    return rewritten(path, lambda old: {
        name: bytes(2**29) if name.endswith("data/0") else data for name, data in old.items()
    }, zipfile.ZIP_DEFLATED)  # fmt: skip


@FILES.made_with("torch")
def torch_with_members_that_overlap(folder):
    return overlapping(folder / "x.pth", 2000, bytes(2**20))


@FILES.made_with("torch")
def torch_with_a_member_outside(folder):
    return rewritten(saved(folder, small()), lambda old: {**old, "../../etc/passwd": b"root"})


@FILES.made_with("torch")
def torch_in_a_tar_with_a_link(folder):
    with tarfile.open(folder / "x.pt", "w") as archive:
        info = tarfile.TarInfo("storages")
        info.type, info.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(info)
    return folder / "x.pt"


@FILES.made_with("torch")
def torch_with_one_number_for_a_trillion(folder):
    import torch

    return saved(folder, {"a.weight": torch.zeros(1).expand(10**6, 10**6)})


@FILES.made_with("torch")
def torch_that_holds_itself(folder):
    holder = {}
    holder["model"] = holder["a"] = holder
    return saved(folder, holder)


@FILES.made_with("torch")
def torch_that_doubles_at_every_level(folder):
    inner = small()
    for _ in range(60):
        inner = {"a": inner, "b": inner}
    return saved(folder, inner)


@FILES.made_with("torch")
def torch_nested_without_end(folder):
    pickled = b"\x80\x02" + b"]" * 200_000 + b"a" * 199_999 + b"."
    path = saved(folder, small())
    return rewritten(path, lambda old: {
        name: pickled if name.endswith("data.pkl") else data for name, data in old.items()
    })  # fmt: skip


@FILES.made_with("torch")
def torch_with_a_long_pickle(folder):
    path = saved(folder, small())
    return rewritten(path, lambda old: {
        name: b"\x80\x02" + b"]" * 2**25 if name.endswith("data.pkl") else data
        for name, data in old.items()
    })  # fmt: skip


@FILES.made_with("torch")
def torch_cut_short(folder):
    path = saved(folder, small())
    path.write_bytes(path.read_bytes()[:2000])
    return path


@FILES.made_with("torch")
def torch_without_a_storage(folder):
    path = saved(folder, small())
    return rewritten(path, lambda old: {k: v for k, v in old.items() if not k.endswith("data/0")})


@FILES.made_with("torch")
def torch_with_a_short_storage(folder):
    path = saved(folder, small())
    return rewritten(path, lambda old: {
        name: data[:10] if name.endswith("data/0") else data for name, data in old.items()
    })  # fmt: skip


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return FILES.opened(tmp_path_factory.mktemp("hostile"))


@pytest.mark.parametrize("name", FILES.makers)
def test_a_hostile_file_is_refused_at_once(opened, name):
    assert FILES.is_refused(name, *opened)
