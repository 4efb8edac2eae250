import os
import sys
from pathlib import Path

import hypothesis
import jax
import numpy as np
import pytest
import rich.progress
from jax.experimental.compilation_cache import compilation_cache

import memsim
from memsim.cli import main
from memsim.selection import named_leaves
from training.tasks import digits_task

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")

# examples are slow where each first compiles, and the same on every machine
hypothesis.settings.register_profile("memsim", deadline=None, derandomize=True)
hypothesis.settings.load_profile("memsim")

# workers are told a terminal's width, which tables would keep to
os.environ.pop("COLUMNS", None)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def compile_once(tmp_path_factory):
    """What is compiled once serves all tests of a run, its workers and the processes they start."""
    folder = tmp_path_factory.getbasetemp()
    folder = (folder.parent if folder.name.startswith("popen-") else folder) / "compiled"
    folder = os.environ.get("JAX_COMPILATION_CACHE_DIR", folder)  # one that outlives this run
    for name, value in (
        ("jax_compilation_cache_dir", str(folder)),
        ("jax_persistent_cache_min_compile_time_secs", 0.05),
    ):
        os.environ[name.upper()] = str(value)
        jax.config.update(name, value)
    # some CPUs have XLA say of all that is cached that it may not be theirs: not memsim's own words
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    compilation_cache.reset_cache()


@pytest.fixture(scope="module", autouse=True)
def few_programs():
    """Compiled programs of thousands of tests would use up the memory maps of a process."""
    yield
    jax.clear_caches()


@pytest.fixture
def key():
    return jax.random.key(0)


@pytest.fixture
def run(monkeypatch, capsys):
    """The command line: `run(*arguments)` gives exit status, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["memsim", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        printed = capsys.readouterr()
        return exit_.value.code, printed.out, " ".join(printed.err.split())

    return run


@pytest.fixture
def assets():
    """Folder of trained weights and real images."""
    if not (SHARED / "assets").is_dir():
        pytest.skip(f"no trained weights in {SHARED / 'assets'}")
    return SHARED / "assets"


@pytest.fixture(scope="session")
def reference_logits():
    """Logits that timm and torchvision compute, by weights and model."""
    path = SHARED / "oracles" / "logits.npz"
    if not path.is_file():
        pytest.skip(f"no reference logits in {path}")
    return np.load(path)


@pytest.fixture(scope="session")
def language_logits():
    """Logits that transformers computes, by the weights and model."""
    path = SHARED / "oracles" / "logits_lm.npz"
    if not path.is_file():
        pytest.skip(f"no reference logits in {path}")
    return np.load(path)


@pytest.fixture(scope="session")
def ir_drop_circuits():
    """Crossbars with resistive wires that a circuit simulator solved."""
    path = SHARED / "oracles" / "ir_drop_qucs.npz"
    if not path.is_file():
        pytest.skip(f"no solved circuits in {path}")
    return np.load(path)


@pytest.fixture(scope="session")
def digits_weights(tmp_path_factory):
    """A digits CNN, trained for as long as it takes to tell most digits apart."""
    with rich.progress.Progress(disable=True) as bar, jax.numpy_dtype_promotion("standard"):
        task = digits_task(0, bar, epochs=4)
    path = tmp_path_factory.mktemp("weights") / "digits.safetensors"
    memsim.save_tensors(path, named_leaves(task.params))
    return path


@pytest.fixture
def config():
    return memsim.CrossbarConfig(rows=4, crossbars=2)


@pytest.fixture
def params():
    """Two layers that leave short sections and idle crossbars; every test that takes them shares
    its compiled programs with the others.
    """
    rng = np.random.default_rng(0)
    return {
        "layer2": {"kernel": rng.standard_normal((6, 5)).astype(np.float32)},
        "layer10": {"kernel": rng.standard_normal((3, 3)).astype(np.float32)},
        "bias": np.ones(3, np.float32),
    }


@pytest.fixture
def compilations():
    """Counts what XLA compiles from here on."""
    seen = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            seen.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield lambda: len(seen)
    jax.monitoring.unregister_event_duration_listener(listen)
