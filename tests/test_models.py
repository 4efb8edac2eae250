import json
import math
import os
import re
import subprocess
import sys
import zlib
from collections import Counter
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from hub import Hub, running

import memsim
from memsim.planning import select_layers
from memsim.selection import named_leaves
from training.data.preprocessing import CIFAR, DEIT, TORCHVISION, VIT, Preprocessing, normalise
from training.models import CifarResNet, ResNet, VisionTransformer
from training.models.cnn import convolve_patches
from training.models.loading import torch_shapes
from training.models.pretrained import MODELS, build, open_network
from training.models.resnet import BasicBlock


def shapes(model):
    """Names and shapes of a checkpoint of `model`."""
    return torch_shapes(nnx.state(nnx.eval_shape(lambda: MODELS[model].make(rngs=nnx.Rngs(0)))))


def seeded(shapes):
    """A checkpoint made up from the names of its tensors, as those of the reference logits were."""

    def tensor(name, shape):
        rng = np.random.default_rng(zlib.crc32(name.encode()))
        if name.endswith("running_var"):
            return rng.uniform(0.5, 1.5, shape)
        if name.endswith("running_mean"):
            return 0.1 * rng.standard_normal(shape)
        if name.endswith(".weight") and len(shape) == 1:
            return rng.uniform(0.8, 1.2, shape)
        if name.endswith("weight"):
            return rng.standard_normal(shape) / math.sqrt(math.prod(shape[1:]))
        return 0.02 * rng.standard_normal(shape)

    return {name: tensor(name, shape).astype(np.float32) for name, shape in shapes.items()}


def furthest(logits, reference):
    """Largest difference, in standard deviations of the reference."""
    return np.abs(np.asarray(logits) - reference).max() / reference.std()


def noise():
    return np.random.default_rng(0).standard_normal((2, 224, 224, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "model",
    [
        "resnet18",
        pytest.param("resnet50", marks=pytest.mark.slow),
        pytest.param("vit_base_patch16_224", marks=pytest.mark.slow),
        pytest.param("deit_small_patch16_224", marks=pytest.mark.slow),
    ],
)
def test_logits_of_seeded_weights_are_those_of_timm(reference_logits, model):
    logits = jax.jit(lambda tensors, images: build(model, tensors)(images))(
        seeded(shapes(model)), noise()
    )
    assert furthest(logits, reference_logits[f"seeded/timm/{model}"]) < 1e-4


def test_logits_of_trained_deit_tiny_are_those_of_timm(assets, reference_logits):
    model = "deit_tiny_patch16_224"
    network = open_network(model, assets / f"{model}.safetensors")
    logits = build(model, network.tensors)(noise())
    assert furthest(logits, reference_logits[f"trained/timm/{model}"]) < 1e-4
    assert network.preprocessing == DEIT
    assert network.classes == 1000


def test_resnet20_classifies_cifar10(assets, reference_logits):
    network = open_network("resnet20", assets / "resnet20_cifar10.safetensors")
    test = np.load(assets / "cifar10_test2000.npz")
    logits = np.asarray(jax.jit(network.apply)(network.tensors, test["image"]))
    reference = reference_logits["trained/resnet20_cifar10/test2000_first64"]
    assert furthest(logits[:64], reference) < 1e-4
    assert abs(np.sum(logits.argmax(-1) == test["label"]) - 1842) <= 2
    assert network.preprocessing == CIFAR


# layers with weights, and parameters, as their papers and torchvision's and timm's pages give them
@pytest.mark.parametrize(
    ("model", "matrices", "parameters"),
    [
        ("resnet20", 20, 269_722),
        ("resnet32", 32, 464_154),
        pytest.param("resnet44", 44, 658_586, marks=pytest.mark.slow),
        pytest.param("resnet56", 56, 853_018, marks=pytest.mark.slow),
        pytest.param("resnet110", 110, 1_727_962, marks=pytest.mark.slow),
        ("resnet18", 21, 11_689_512),
        pytest.param("resnet34", 37, 21_797_672, marks=pytest.mark.slow),
        ("resnet50", 54, 25_557_032),
        pytest.param("resnet101", 105, 44_549_160, marks=pytest.mark.slow),
        ("vit_tiny_patch16_224", 50, 5_717_416),
        pytest.param("deit_small_patch16_224", 50, 22_050_664, marks=pytest.mark.slow),
        pytest.param("vit_base_patch16_224", 50, 86_567_656, marks=pytest.mark.slow),
    ],
)
def test_every_model_is_as_large_as_published(model, matrices, parameters):
    learned = {name: shape for name, shape in shapes(model).items() if "running" not in name}
    assert sum(map(math.prod, learned.values())) == parameters
    programmed = [name for name in learned if "weight" in name and len(learned[name]) > 1]
    assert len(programmed) == matrices


WHERE = """
    programmed  patch_embed.proj.weight     768 x 768
    programmed  blocks.*.attn.qkv.weight    768 x 2304
    programmed  blocks.*.attn.proj.weight   768 x 768
    programmed  blocks.*.mlp.fc1.weight     768 x 3072
    programmed  blocks.*.mlp.fc2.weight     3072 x 768
    programmed  head.weight                 768 x 1000
    digital     cls_token
    digital     pos_embed
    digital     patch_embed.proj.bias
    digital     blocks.*.norm1.weight
    digital     blocks.*.norm1.bias
    digital     blocks.*.attn.qkv.bias
    digital     blocks.*.attn.proj.bias
    digital     blocks.*.norm2.weight
    digital     blocks.*.norm2.bias
    digital     blocks.*.mlp.fc1.bias
    digital     blocks.*.mlp.fc2.bias
    digital     norm.weight
    digital     norm.bias
    digital     head.bias
"""


@pytest.mark.parametrize("names", ["torch", "flax"])
def test_every_tensor_of_a_vit_is_listed_where_it_went(names):
    if names == "torch":
        leaves = {
            name: jax.ShapeDtypeStruct(shape, np.float32)
            for name, shape in shapes("vit_base_patch16_224").items()
        }
    else:
        make = MODELS["vit_base_patch16_224"].make
        leaves = named_leaves(nnx.state(nnx.eval_shape(lambda: make(rngs=nnx.Rngs(0)))))
    selected = select_layers(leaves, memsim.select_by_name())
    listed = Counter()
    for name in leaves:
        called = re.sub("kernel|scale", "weight", name.replace("/", "."))
        where = f"digital {re.sub('[.][0-9]+[.]', '.*.', called)}"
        if name in selected:
            matrix = selected[name].matrix
            outputs, inputs = matrix.outputs, matrix.inputs
            where = f"{where.replace('digital', 'programmed')} {inputs} x {outputs}"
        listed[where] += 1
    lines = [" ".join(line.split()) for line in WHERE.strip().splitlines()]
    assert listed == {line: 12 if "*" in line else 1 for line in lines}


@pytest.fixture
def small(tmp_path):
    """A checkpoint of a ResNet-20 for 4 classes, and its file."""
    network = nnx.eval_shape(lambda: CifarResNet(3, classes=4, rngs=nnx.Rngs(0)))
    tensors = seeded(torch_shapes(nnx.state(network)))
    tensors["bn1.num_batches_tracked"] = np.asarray(7)
    memsim.save_tensors(tmp_path / "small.safetensors", tensors)
    return tensors, tmp_path / "small.safetensors"


def test_a_network_is_differentiable_and_of_the_classes_of_its_checkpoint(small):
    network = open_network("resnet20", small[1])
    assert network.classes == 4
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), np.uint8)
    kernels = {name: x for name, x in network.tensors.items() if x.ndim > 1}
    loss = jax.jit(lambda kernels: network.apply(network.tensors | kernels, images).sum())
    gradient = jax.grad(loss)(kernels)
    assert all(np.any(np.asarray(g)) for g in gradient.values())
    assert {name: g.shape for name, g in gradient.items()} == {
        name: x.shape for name, x in kernels.items()
    }


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_formats_and_precisions_load_alike(small, tmp_path, suffix):
    tensors, _ = small
    halved = {name: x.astype(np.float16) for name, x in tensors.items() if x.ndim}
    memsim.save_tensors(tmp_path / f"half{suffix}", halved)
    network = open_network("resnet20", tmp_path / f"half{suffix}")
    assert network.tensors["conv1.weight"].dtype == np.float16
    images = np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).astype(np.uint8)
    rounded = {name: x.astype(np.float32) for name, x in halved.items()}
    logits = network.apply(network.tensors, images)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(logits, network.apply(rounded, images))


def test_tensors_that_do_not_fit_are_named(small, tmp_path):
    tensors, path = small
    wrong = tensors | {
        "conv1.weight": np.zeros((16, 3, 5, 5), np.float32),
        "aux.bias": np.zeros(3, np.float32),
    }
    del wrong["layer3.2.bn2.bias"], wrong["layer1.0.bn1.running_var"]
    memsim.save_tensors(path, wrong, force=True)
    with pytest.raises(ValueError, match="does not fit resnet20") as error:
        open_network("resnet20", path)
    for text in (
        "missing: layer1.0.bn1.running_var (16,), layer3.2.bn2.bias (64,)",
        "unknown: aux.bias (3,)",
        "misshapen: conv1.weight (16, 3, 5, 5) instead of (16, 3, 3, 3)",
    ):
        assert text in str(error.value)
    with pytest.raises(ValueError, match="`model` is 'resnet19'; choose one of resnet20, "):
        open_network("resnet19", path)
    for name in ("runs/x.safetensors", "weights/resnet20.pth"):
        with pytest.raises(FileNotFoundError, match=f"{re.escape(name)} is not a file"):
            open_network("resnet20", name)


def test_a_file_of_torch_is_a_network(small, tmp_path):
    torch = pytest.importorskip("torch", reason="files of PyTorch take torch: pip install torch")
    tensors, path = small
    state = {name: torch.from_numpy(tensor) for name, tensor in tensors.items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "small.th")
    images = np.arange(2 * 32 * 32 * 3).reshape(2, 32, 32, 3).astype(np.uint8)
    one, other = (open_network("resnet20", file) for file in (path, tmp_path / "small.th"))
    np.testing.assert_array_equal(
        one.apply(one.tensors, images), other.apply(other.tensors, images)
    )


def torchvision_vit(depth):
    """Names of torchvision's vit_b_16, with the shapes of a narrow one."""
    width = 64
    yield "class_token", (1, 1, width)
    yield "conv_proj.weight", (width, 3, 16, 16)
    yield "conv_proj.bias", (width,)
    yield "encoder.pos_embedding", (1, 197, width)
    for i in range(depth):
        block = f"encoder.layers.encoder_layer_{i}"
        for norm in ("ln_1", "ln_2"):
            yield f"{block}.{norm}.weight", (width,)
            yield f"{block}.{norm}.bias", (width,)
        yield f"{block}.self_attention.in_proj_weight", (3 * width, width)
        yield f"{block}.self_attention.in_proj_bias", (3 * width,)
        yield f"{block}.self_attention.out_proj.weight", (width, width)
        yield f"{block}.self_attention.out_proj.bias", (width,)
        for layer, shape in (("linear_1", (256, 64)), ("linear_2", (64, 256))):
            yield f"{block}.mlp.{layer}.weight", shape
            yield f"{block}.mlp.{layer}.bias", shape[:1]
    yield "encoder.ln.weight", (width,)
    yield "encoder.ln.bias", (width,)
    yield "heads.head.weight", (10, width)
    yield "heads.head.bias", (10,)


@pytest.mark.slow
def test_a_vit_of_torchvision_loads_by_its_own_names(monkeypatch, tmp_path):
    from training.models import pretrained

    narrow = pretrained.Architecture(
        lambda **options: VisionTransformer(64, 1, **options), "head.weight", VIT
    )
    monkeypatch.setitem(MODELS, "vit", narrow)
    tensors = seeded(dict(torchvision_vit(12)))
    memsim.save_tensors(tmp_path / "vit.npz", tensors)
    network = open_network("vit", tmp_path / "vit.npz")
    assert network.preprocessing == TORCHVISION
    assert network.classes == 10
    plan = memsim.plan(network.tensors, memsim.CrossbarConfig(), memsim.policies.Unsorted())
    assert len(plan.layers) == 50  # all four of every block among them
    images = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), np.uint8)
    called = {
        "class_token": "cls_token", "conv_proj": "patch_embed.proj", "encoder.ln": "norm",
        "encoder.pos_embedding": "pos_embed", "encoder.layers.encoder_layer_": "blocks.",
        "heads.head": "head", "ln_1": "norm1", "ln_2": "norm2", "mlp.linear_": "mlp.fc",
        "self_attention.in_proj_": "attn.qkv.", "self_attention.out_proj": "attn.proj",
    }  # fmt: skip
    renamed = {}
    for name, tensor in tensors.items():
        timm = name
        for torchvision, other in called.items():
            timm = timm.replace(torchvision, other)
        renamed[timm] = tensor
    np.testing.assert_array_equal(
        network.apply(tensors, images),
        build("vit", renamed)(normalise(images, TORCHVISION)),
    )


def test_imagenet_shortcuts_project_and_cifar_shortcuts_pad():
    wide = nnx.eval_shape(lambda: ResNet(BasicBlock, (1, 1, 1, 1), rngs=nnx.Rngs(0)))
    assert [len(stage[0].downsample) for stage in (wide.layer1, wide.layer2)] == [0, 2]
    block = BasicBlock(2, 4, 2, nnx.Rngs(0), project=False)
    block.bn2.scale[...] = np.zeros(4, np.float32)  # nothing but what is carried
    images = np.random.default_rng(0).uniform(size=(1, 4, 4, 2)).astype(np.float32)
    expected = np.zeros((1, 2, 2, 4), np.float32)
    expected[..., 1:3] = images[:, ::2, ::2]
    np.testing.assert_array_equal(block(images), expected)


FETCH = """
import sys
from training.models.loading import fetch
from training.models.pretrained import open_network
for repository in sys.argv[1:]:
    try:
        print(fetch(repository))
        print(open_network("resnet20", repository).preprocessing)
    except (FileNotFoundError, ValueError) as error:
        print(error)
"""


@pytest.fixture
def fetched(tmp_path):
    """`(files, *repositories, **environment) -> lines`: a hub of its own, a process of its own."""
    with running(tmp_path) as address:

        def run(files, *repositories, **environment):
            Hub.files = files
            done = subprocess.run(
                [sys.executable, "-c", FETCH, *repositories],
                env=os.environ | address | environment, cwd=Path(__file__).parents[1],
                capture_output=True, text=True, check=True,
            )  # fmt: skip
            return done.stdout.splitlines()

        yield run


@pytest.mark.slow
def test_weights_come_from_the_hub_with_their_preprocessing(fetched, small):
    stated = {
        "input_size": [3, 32, 32], "crop_pct": 0.875, "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.25, 0.25],
    }  # fmt: skip
    content = small[1].read_bytes()
    files = {
        "/some/resnet20.cifar/resolve/main/model.safetensors": content,
        "/some/resnet20.cifar/resolve/main/config.json": json.dumps(
            {"pretrained_cfg": stated}
        ).encode(),
        "/some/plain/resolve/main/model.safetensors": content,
    }
    files["/some/half/resolve/main/model.safetensors"] = content
    files["/some/half/resolve/main/config.json"] = None  # the hub answers neither yes nor no
    half = fetched(files, "some/half")
    assert "did not give its model.safetensors and config.json" in half[0]
    lines = fetched(files, "some/resnet20.cifar", "some/plain", "some/missing")
    assert Path(lines[0]).read_bytes() == content
    assert lines[1] == str(Preprocessing(32, 0.875, "bicubic", (0.5,) * 3, (0.25,) * 3))
    assert lines[3] == str(CIFAR)
    assert "some/missing is no file, and the Hugging Face hub did not give" in lines[4]

    kept, *_, missing = fetched({}, "some/resnet20.cifar", "some/missing", HF_HUB_OFFLINE="1")
    assert kept == lines[0]
    assert "Without a network, fetch https://huggingface.co/some/missing/resolve/" in missing


@pytest.mark.slow
def test_weights_in_several_files_come_from_the_hub(fetched, small, tmp_path):
    tensors, _ = small
    names, folder = sorted(tensors), "/some/sharded/resolve/main"
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    files = {}
    for part, some in parts.items():
        memsim.save_tensors(tmp_path / part, {name: tensors[name] for name in some})
        files[f"{folder}/{part}"] = (tmp_path / part).read_bytes()
    index = {"weight_map": {name: part for part, some in parts.items() for name in some}}
    files[f"{folder}/model.safetensors.index.json"] = json.dumps(index).encode()
    path, preprocessing = fetched(files, "some/sharded")
    assert path.endswith("model.safetensors.index.json")
    assert preprocessing == str(CIFAR)
    files[f"{folder}/model.safetensors.index.json"] = b"[]"
    (broken,) = fetched({name.replace("sharded", "broken"): x for name, x in files.items()},
                        "some/broken")  # fmt: skip
    assert "is no index of shards" in broken


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 1)])
def test_patches_times_a_matrix_is_a_convolution(key, strides):
    images = jax.random.normal(key, (3, 8, 7, 4))
    kernel = jax.random.normal(key, (3, 3, 4, 5))
    dimensions = ("NHWC", "HWIO", "NHWC")
    expected = jax.lax.conv_general_dilated(
        images, kernel, strides, "SAME", dimension_numbers=dimensions
    )
    actual = convolve_patches(images, kernel, strides, "SAME", dimension_numbers=dimensions)
    np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)
