"""Files of HDF5 and Keras, made by h5py and keras: kernels are read as their layers do."""

import os

import jax
import ml_dtypes
import numpy as np
import pytest
from checkpoint_kinds import holds, numbers, program, read_as

import memsim
from memsim.files._keras import layers_of

os.environ.setdefault("KERAS_BACKEND", "jax")

# Keras reads its own arrays in a way that NumPy has deprecated
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


@pytest.fixture
def h5py():
    return pytest.importorskip("h5py", reason='HDF5 files take h5py: pip install "memsim[files]"')


@pytest.fixture(scope="module")
def keras_model():
    """A model with layers of every kind that has weights, some of names that mislead."""
    pytest.importorskip("h5py")
    keras = pytest.importorskip(
        "keras", reason="files of Keras are made by keras: pip install keras"
    )
    layers = keras.layers
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        keras.utils.set_random_seed(0)
        given = keras.Input((8, 8, 4))
        x = layers.Conv2D(8, 3, name="dense")(given)
        x = layers.DepthwiseConv2D(3, depth_multiplier=2, name="mixer")(x)
        x = layers.SeparableConv2D(6, 3)(x)
        x = layers.Conv2DTranspose(5, 2, name="wide")(x)
        x = layers.BatchNormalization()(x)
        x = layers.Reshape((-1, 5))(x)
        x = layers.MultiHeadAttention(2, 4)(x, x)
        x = layers.EinsumDense("abc,cde->abde", (None, 2, 3), name="sums")(x)
        x = layers.Reshape((-1, 6))(x)
        x = layers.TimeDistributed(layers.Dense(6))(x)
        x = layers.Bidirectional(layers.GRU(3, return_sequences=True))(x)
        x = layers.LSTM(3)(x)
        model = keras.Model(given, layers.Dense(7, name="conv2d_transpose")(x))
        model.compile(optimizer="adam", loss="mse")
    return model


KERAS = {  # layers, by what their paths have; how their kernels are read
    "dense": "in-out", "mixer": "depthwise", "wide": "window-out-in",
    "conv2d_transpose": "in-out", "sums": "in-out",
}  # fmt: skip


def kernels(model):
    """The variables of a model of two or more axes, by what Keras calls them."""
    return {w.path: np.asarray(w) for w in model.weights if len(w.shape) > 1}


@pytest.mark.parametrize("suffix", [".keras", ".weights.h5", ".h5"])
@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_models_of_keras(tmp_path, keras_model, h5py, run, suffix, capsys):
    path = tmp_path / f"model{suffix}"
    (keras_model.save_weights if suffix == ".weights.h5" else keras_model.save)(path)
    capsys.readouterr()
    source = memsim.open_checkpoint(path)
    # every variable is there, bit for bit, and nothing of the optimizer
    read = sorted(source.load(name).tobytes() for name in source.tensors)
    assert read == sorted(np.asarray(w).tobytes() for w in keras_model.weights)
    # the same matrices, whatever the file calls them
    by_bytes = {source.load(name).tobytes(): name for name in source.tensors}
    mapped = read_as(source)
    for called, kernel in kernels(keras_model).items():
        name = by_bytes[kernel.tobytes()]
        layer, *_, role = called.split("/")
        if role == "bias":
            assert name not in mapped
        elif layer == "sums" and suffix == ".weights.h5":
            # its equation is in the configuration, which weights alone do not have
            assert "does not tell what its layer does" in source.reasons[name]
        elif layer in KERAS:
            rule = LAYOUTS_OF[KERAS[layer]]
            assert mapped[name] == rule.get(kernel.ndim, KERAS[layer]), called
        elif "attention" in layer:
            # heads and their features are inputs of what comes after them
            assert mapped[name] == ("in-out" if "output" in called else "in-heads-dim"), called
        elif role == "depthwise_kernel":
            assert mapped[name] == "in-stacked-out", called
        else:
            assert mapped[name] == "in-out", called
    # and a file of the same kind that Keras loads
    program(run, path, tmp_path / f"held{suffix}")
    before = [np.asarray(w) for w in keras_model.weights]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        keras_model.load_weights(tmp_path / f"held{suffix}")
    after = [np.asarray(w) for w in keras_model.weights]
    keras_model.set_weights(before)
    held = memsim.open_checkpoint(tmp_path / f"held{suffix}")
    assert sorted(held.load(n).tobytes() for n in held.tensors) == sorted(
        w.tobytes() for w in after
    )
    changed = sum(not np.array_equal(x, y) for x, y in zip(before, after, strict=True))
    assert changed == len(mapped)


LAYOUTS_OF = {
    "in-out": {3: "in-heads-dim"},  # the kernel of sums has two axes of outputs
    "depthwise": {4: "in-stacked-out"},
    "window-out-in": {4: "window-out-in"},
}


def test_a_model_of_keras_within_a_model_and_of_attributes(tmp_path, keras_model, h5py):
    import keras

    class Mine(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv2d = keras.layers.Dense(3)
            self.another = keras.layers.Dense(4, name="mine")

        def call(self, x):
            return self.another(self.conv2d(x))

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        model = Mine()
        model(np.zeros((1, 5), np.float32))
    model.save_weights(tmp_path / "x.weights.h5")
    source = memsim.open_checkpoint(tmp_path / "x.weights.h5")
    # the name that Keras made for a layer tells its class, that of an attribute does not
    assert read_as(source) == {"conv2d/vars/0": "in-out"}
    assert "--map 'RE=LAYOUT' does" in source.reasons["another/vars/0"]


def test_names_of_keras_that_mislead_are_no_classes():
    plain = layers_of(None)
    assert plain.layout("head/vars/0", "dense_2", (4, 5)) == "in-out"
    assert plain.layout("head/vars/0", "dense", (3, 3, 4, 5)) is None  # of a convolution called so
    assert plain.layout("head/vars/0", "conv2d", (4, 5)) is None
    assert plain.layout("head/vars/0", "", (4, 5)) is None
    # two layers of one name, which may be either
    of = {"class_name": "EinsumDense", "config": {"name": "sums", "equation": "ab,bc->ac"}}
    other = {"class_name": "EinsumDense", "config": {"name": "sums", "equation": "ab,cb->ac"}}
    path = "model_weights/sums/sums/kernel"
    assert layers_of([of]).layout(path, "", (4, 5)) == "in-out"
    assert layers_of([other]).layout(path, "", (4, 5)) == "out-in"
    assert layers_of([of, other]).layout(path, "", (4, 5)) is None


def test_narrow_floats_of_keras(tmp_path, keras_model, h5py, run):
    import keras

    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        layers = [keras.layers.Dense(6, dtype="bfloat16"), keras.layers.Dense(3, dtype="float16")]
        model = keras.Sequential([keras.Input((5,)), *layers])
    model.save(tmp_path / "x.keras")
    source = memsim.open_checkpoint(tmp_path / "x.keras")
    expected = {
        f"layers/{layer}/vars/{at}": np.asarray(layers[number].weights[at].value)
        for number, layer in enumerate(("dense", "dense_1"))
        for at in (0, 1)
    }
    assert expected["layers/dense/vars/0"].dtype == ml_dtypes.bfloat16
    assert holds(source, expected)
    program(run, tmp_path / "x.keras", tmp_path / "held.keras")
    held = memsim.open_checkpoint(tmp_path / "held.keras")
    assert {name: held.load(name).dtype for name in expected} == {
        name: array.dtype for name, array in expected.items()
    }
    assert (
        held.load("layers/dense/vars/0").tobytes() != source.load("layers/dense/vars/0").tobytes()
    )


def test_datasets_of_hdf5(tmp_path, h5py, run):
    tensors = {
        "dense/kernel": numbers(20, 6), "half/kernel": numbers(6, 4, dtype=np.float16),
        "big/kernel": numbers(6, 4).astype(">f4"), "ids": np.arange(6), "flags": np.ones(3, bool),
        "packed/kernel": np.zeros((100, 50)), "deep/er/est/kernel": numbers(3, 3),
    }  # fmt: skip
    path = tmp_path / "x.hdf5"
    with h5py.File(path, "w") as file:
        for name, array in tensors.items():
            extra = {"compression": "gzip"} if name == "packed/kernel" else {}
            file.create_dataset(name, data=array, **extra)
        file["text"] = "hello"
        file["brain"] = numbers(3, 3).astype(ml_dtypes.bfloat16).view("V2")
        file["tied"] = file["dense/kernel"]
    native = {name: x.astype(x.dtype.newbyteorder("=")) for name, x in tensors.items()}
    source = memsim.open_checkpoint(path)
    assert "dtype the file does not say" in source.reasons["brain"]
    assert source.metadata == {"tied": "dense/kernel"}
    for name in native:
        assert source.load(name).tobytes() == native[name].tobytes()
    assert set(source.tensors) == {*native, "brain"}
    program(run, path, tmp_path / "held.h5")
    with h5py.File(tmp_path / "held.h5") as file:
        assert np.array_equal(file["tied"], file["dense/kernel"])
        assert not np.array_equal(file["tied"], tensors["dense/kernel"])
        assert file["big/kernel"].dtype == ">f4"
        assert file["text"][()] == b"hello"
