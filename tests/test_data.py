import operator

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from training.data import Arrays, Images, digits, open_images, read_batches, training_batches
from training.data.preprocessing import (
    CIFAR,
    DEIT,
    TORCHVISION,
    VIT,
    central_crop,
    normalise,
    read_timm_config,
)


def test_digits_are_split_by_class_and_normalised():
    data = digits()
    assert data.train_images.shape == (1297, 8, 8, 1)
    assert data.test_images.shape == (500, 8, 8, 1)
    assert abs(data.train_images.mean()) < 1e-5
    assert abs(data.train_images.std() - 1) < 1e-5
    assert np.bincount(data.test_labels).min() > 40


def test_a_shifted_batch_moves_each_image_by_at_most_one_pixel():
    data = digits()
    examples = Arrays(data.train_images, data.train_labels)
    options = {"size": 16, "seed": 1, "shift": 1, "flip": False}
    prepare = operator.itemgetter("image", "label")
    images, labels = next(training_batches(examples, prepare, **options))
    padded = np.pad(
        data.train_images, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=data.train_images.min()
    )
    windows = {
        padded[i, y : y + 8, x : x + 8].tobytes(): data.train_labels[i]
        for i in range(len(padded))
        for y in range(3)
        for x in range(3)
    }
    assert [windows[image.tobytes()] for image in images] == list(labels)


def test_training_batches_are_the_same_from_wherever_they_start():
    data = digits()
    examples = Arrays(data.train_images, data.train_labels)
    options = {"size": 500, "seed": 1, "shift": 1, "flip": True}
    prepare = operator.itemgetter("image", "label")
    batches = training_batches(examples, prepare, **options)
    first, _, third, fourth = (next(batches) for _ in range(4))  # an epoch is less than three
    later = training_batches(examples, prepare, **options, start=2)
    for batch, again in ((third, next(later)), (fourth, next(later))):
        np.testing.assert_array_equal(batch[0], again[0])
        np.testing.assert_array_equal(batch[1], again[1])
    assert np.any(first[0] != third[0])


@pytest.mark.parametrize(
    ("name", "classes", "split"),
    [("mnist", 10, None), ("cifar100", 100, "test"), ("imagenet2012", 1000, "validation")],
)
def test_sets_of_tensorflow_datasets_come_in_batches(name, classes, split):
    with tfds.testing.mock_data(num_examples=7):
        images = open_images(name, split)
        assert images.classes == classes
        stored = [images.examples[i] for i in range(7)]
        batches = list(read_batches(images, TORCHVISION, size=3))
    assert [len(labels) for _, labels in batches] == [3, 3, 1]
    pictures, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    assert pictures.shape == (7, 224, 224, 3)
    assert pictures.dtype == np.uint8
    assert labels.dtype == np.int32
    assert list(labels) == [example["label"] for example in stored]
    for picture, example in zip(pictures, stored, strict=True):
        np.testing.assert_array_equal(picture, central_crop(example["image"], TORCHVISION))


def test_a_set_that_is_not_prepared_says_how_to_prepare_it(tmp_path):
    with pytest.raises(FileNotFoundError, match="`data` cifar10 is not prepared") as error:
        open_images("cifar10", data_dir=str(tmp_path))
    assert (
        "  python -c \"import tensorflow_datasets as tfds; tfds.builder('cifar10', "
        f"data_dir='{tmp_path}', file_format='array_record').download_and_prepare()\"\n"
    ) in str(error.value)
    with pytest.raises(FileNotFoundError) as error:
        open_images("imagenet2012", data_dir=str(tmp_path))
    assert f"manual_dir {tmp_path}/downloads/manual" in str(error.value)
    assert "ILSVRC2012_img_val.tar" in str(error.value)


@pytest.fixture
def npz(tmp_path):
    def save(**arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return str(tmp_path / "data.npz")

    return save


def test_an_npz_file_comes_in_batches(npz):
    rng = np.random.default_rng(0)
    image, label = rng.integers(0, 256, (10, 32, 32, 3), np.uint8), rng.integers(0, 5, 10)
    images = open_images(npz(image=image, label=label))
    assert images.classes == label.max() + 1
    batches = list(read_batches(images, CIFAR, size=4, limit=6))
    np.testing.assert_array_equal(np.concatenate([part for part, _ in batches]), image[:6])
    np.testing.assert_array_equal(np.concatenate([part for _, part in batches]), label[:6])


def test_an_error_in_the_middle_of_the_images_is_raised():
    broken = Images([{"image": np.zeros((4, 4, 3), np.uint8), "label": 0}, {"label": 1}], 2, True)
    with pytest.raises(KeyError, match="image"):
        list(read_batches(broken, CIFAR, size=2))


def test_an_image_without_a_label_is_refused():
    hidden = Images([{"image": np.zeros((4, 4, 3), np.uint8), "label": -1}], 2, True)
    with pytest.raises(ValueError, match="label -1; choose a labelled split"):
        list(read_batches(hidden, CIFAR, size=2))


PICTURE, LABEL = np.zeros((3, 4, 4, 3), np.uint8), np.zeros(3, int)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": PICTURE, "label": LABEL}, r"holds \['images', 'label'\]; name them image and"),
        ({"image": PICTURE / 1.0, "label": LABEL}, "holds image float64"),
        ({"image": PICTURE[0], "label": LABEL}, r"image uint8 \(4, 4, 3\)"),
        (
            {"image": PICTURE, "label": LABEL[:2]},
            r"label int64 \(2,\); they must be uint8 \[images",
        ),
        ({"image": PICTURE, "label": LABEL / 1.0}, "label float64"),
        ({"image": PICTURE, "label": LABEL - 1}, "integers from 0"),
        ({"image": PICTURE[:0], "label": LABEL[:0]}, r"image uint8 \(0, 4, 4, 3\)"),
    ],
)
def test_arrays_that_are_not_images_and_labels_are_refused(npz, arrays, message):
    with pytest.raises(ValueError, match=message):
        open_images(npz(**arrays))


def test_wrong_names_are_refused(npz, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"missing\.npz is not a file"):
        open_images(str(tmp_path / "missing.npz"))
    with pytest.raises(ValueError, match=r"`split` is 'test', but .* has none; leave it out"):
        open_images(npz(image=PICTURE, label=LABEL), split="test")
    with pytest.raises(ValueError, match="`data` is 'cifar11', which is no"):
        open_images("cifar11", data_dir=str(tmp_path))
    for name in ("./images.zip", "huggingface:cifar10", "cifar10:9.9.9", "coco"):
        with pytest.raises(ValueError, match=f"`data` is '{name}', which is no"):
            open_images(name)
    with pytest.raises(ValueError, match="`data_dir` is '/data', but"):
        open_images(npz(image=PICTURE, label=LABEL), data_dir="/data")
    with pytest.raises(ValueError, match="choose a set of an image and its class"):
        open_images("lfw", data_dir=str(tmp_path))


@pytest.mark.parametrize("shape", [(300, 400), (401, 256), (224, 224), (47, 17), (256, 300)])
@pytest.mark.parametrize("preprocessing", [TORCHVISION, VIT])
def test_the_middle_of_the_resized_image_is_cut_out(shape, preprocessing):
    # ramps: a resized linear ramp is a linear ramp, so that every pixel says where it is from
    height, width = shape
    down, across = np.mgrid[:height, :width] + 0.5
    ramps = [down / height, across / width, 0 * down]
    image = np.stack([np.floor(256 * ramp) for ramp in ramps], axis=-1).astype(np.uint8)
    cut = central_crop(image, preprocessing)
    assert cut.shape == (224, 224, 3)
    target = {0.875: 256, 0.9: 248}[preprocessing.crop]  # torchvision's and timm's shorter side
    scale = target / min(shape)
    margins = [(scale * side - 224) / 2 for side in shape]
    pixels = np.arange(224) + 0.5
    inner = slice(8, -8)  # at the edges of the image there is no ramp to interpolate
    for axis, (margin, side) in enumerate(zip(margins, shape, strict=True)):
        expected = 256 * (margin + pixels) / (scale * side) - 0.5
        line = cut[:, 112, 0] if axis == 0 else cut[112, :, 1]
        error = np.abs(line.astype(float) - expected)[inner].max()
        assert error < 1.6 + 128 / side  # rounding, one pixel of margin, steps of the coarse ramp


def test_bicubic_is_not_bilinear():
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (60, 50, 3), np.uint8)
    cuts = [
        central_crop(image, DEIT._replace(interpolation=kind)).astype(int)
        for kind in ("bilinear", "bicubic")
    ]
    assert np.abs(cuts[0] - cuts[1]).max() > 10
    resized = Image.fromarray(image).resize((248, 297), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(cuts[1], np.asarray(resized)[36:260, 12:236])


def test_grey_images_become_rgb():
    grey = np.arange(32 * 32, dtype=np.uint8).reshape(32, 32, 1)
    np.testing.assert_array_equal(central_crop(grey, CIFAR), np.repeat(grey, 3, axis=-1))


def test_normalised_images_have_the_stated_mean_and_deviation():
    images = np.broadcast_to(np.array([0, 51, 255], np.uint8), (2, 4, 4, 3))
    expected = [(0 - 0.485) / 0.229, (0.2 - 0.456) / 0.224, (1 - 0.406) / 0.225]
    normal = normalise(images, TORCHVISION)
    assert normal.dtype == np.float32
    np.testing.assert_allclose(normal[1, 2], [expected] * 4, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "does not state a preprocessing as timm's config.json does"),
        ('{"architecture": "resnet18"}', "KeyError"),
        (
            '{"pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1, "mean": [0, 0, 0],'
            ' "std": [1, 1, 1], "interpolation": "bicubic", "crop_mode": "squash"}}',
            "asks for bicubic interpolation, crop mode squash and images of 32 x 32",
        ),
        (
            '{"pretrained_cfg": {"input_size": [3, 32, 48], "crop_pct": 1, "mean": [0, 0, 0],'
            ' "std": [1, 1, 1], "interpolation": "bicubic"}}',
            "images of 32 x 48",
        ),
        (
            '{"pretrained_cfg": {"input_size": [3, 32, 32], "crop_pct": 1, "mean": [0, 0, 0],'
            ' "std": [1, 0, 1], "interpolation": "bicubic"}}',
            "does not state a preprocessing",
        ),
    ],
)
def test_a_config_that_states_no_preprocessing_is_refused(tmp_path, text, message):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_timm_config(tmp_path / "config.json")
