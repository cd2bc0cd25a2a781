"""MNIST from IDX files: both names, plain and compressed, and every kind of damage."""

import gzip
import struct

import pytest
import torch

from lightning_stab.data import MNISTDataModule
from lightning_stab.data.mnist import read_idx
from lightning_stab.errors import DatasetError, InvalidArgumentError


def idx_bytes(values):
    header = struct.pack(f">BBBB{values.ndim}I", 0, 0, 8, values.ndim, *values.shape)
    return header + bytes(values.int().flatten().tolist())


def write_mnist(folder, *, joint="-", ending="", train=20, test=6, side=4):
    generator = torch.Generator().manual_seed(0)
    for part, count in (("train", train), ("t10k", test)):
        images = torch.randint(256, (count, side, side), generator=generator)
        classes = torch.randint(10, (count,), generator=generator)
        for stem, values in ((f"{part}-images", images), (f"{part}-labels", classes)):
            content = idx_bytes(values)
            path = folder / f"{stem}{joint}idx{values.ndim}-ubyte{ending}"
            path.write_bytes(gzip.compress(content) if ending else content)
    return folder


def mnist(folder, **settings):
    data = MNISTDataModule(str(folder), batch_size=4, **settings)
    data.setup()
    return data


@pytest.mark.parametrize("joint", ["-", "."])
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_both_customary_names_are_read_plain_and_compressed(tmp_path, joint, ending):
    data = mnist(write_mnist(tmp_path, joint=joint, ending=ending), val_fraction=0.25)
    assert [len(part) for part in (data.train, data.val, data.test)] == [15, 5, 6]


def test_the_values_are_those_of_the_file(tmp_path):
    values = torch.arange(24).reshape(2, 3, 4)
    path = tmp_path / "values"
    path.write_bytes(idx_bytes(values))
    assert torch.equal(read_idx(path, 3).long(), values)


def test_an_uncompressed_file_under_a_compressed_name_is_read(tmp_path):
    folder = write_mnist(tmp_path)
    for path in list(folder.iterdir()):
        path.rename(path.with_name(path.name + ".gz"))
    assert len(mnist(folder).test) == 6


@pytest.mark.parametrize(("image", "shape"), [(False, (16,)), (True, (1, 4, 4))])
def test_samples_are_flat_or_images(tmp_path, image, shape):
    data = mnist(write_mnist(tmp_path), image=image)
    for loader in (data.train_dataloader(), data.val_dataloader(), data.test_dataloader()):
        images, classes = next(iter(loader))
        assert images.shape[1:] == shape
        assert (images.dtype, classes.dtype) == (torch.float32, torch.int64)


def test_split_and_scale_follow_the_seed_and_the_training_images(tmp_path):
    folder = write_mnist(tmp_path, train=100)
    one, same, other = (mnist(folder, seed=seed) for seed in (1, 1, 2))
    assert torch.equal(one.train.tensors[0], same.train.tensors[0])
    assert not torch.equal(one.val.tensors[1], other.val.tensors[1])
    pixels = one.train.tensors[0].double()
    assert float(pixels.mean()) == pytest.approx(0, abs=1e-6)
    assert float(pixels.std(correction=0)) == pytest.approx(1, abs=1e-6)
    everything = torch.cat([one.train.tensors[1], one.val.tensors[1]])
    original = read_idx(folder / "train-labels-idx1-ubyte", 1).long()
    assert torch.equal(everything.sort().values, original.sort().values)


def test_training_needs_no_test_files(tmp_path):
    folder = write_mnist(tmp_path)
    for path in folder.glob("t10k*"):
        path.unlink()
    data = MNISTDataModule(str(folder))
    data.setup("fit")
    with pytest.raises(DatasetError, match="has no file t10k-images-idx3-ubyte or"):
        data.setup("test")


def test_a_missing_folder_or_file_is_named(tmp_path):
    with pytest.raises(DatasetError, match=r"nowhere' is no folder\. Put the four MNIST files"):
        mnist(tmp_path / "nowhere")
    folder = write_mnist(tmp_path)
    (folder / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(DatasetError, match="has no file train-labels-idx1-ubyte or train-labels"):
        mnist(folder)


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda content: content[:-1], r"truncated: its header promises 336 bytes .*, got 335"),
        (lambda content: content + b"x", r"too long: its header promises 336 bytes .*, got 337"),
        (lambda content: content[:10], r"ends within its header of 16 bytes, after 10"),
        (lambda content: b"", r"must start with 00 00 08 03, got nothing"),
        (lambda content: b"<html>" + content, r"must start with 00 00 08 03, got 3c 68 74 6d"),
        (
            lambda content: idx_bytes(torch.zeros(5)),
            r"must start with 00 00 08 03, got 00 00 08 01",
        ),
        (lambda content: b"\0\0\x0d\x03" + content[4:], r"must start with .*, got 00 00 0d 03"),
        (lambda content: gzip.compress(content)[:-20], r"cannot be read"),
        (lambda content: gzip.compress(content)[:5], r"cannot be read"),
        (lambda content: b"\x1f\x8b" + content, r"cannot be read"),
        (lambda content: gzip.compress(content)[:12] + b"\xff" * 40, r"cannot be read"),
        (lambda content: idx_bytes(torch.zeros(0, 4, 4)), r"is empty: its header says shape \(0,"),
        (
            lambda content: idx_bytes(torch.zeros(3, 4, 4)),
            r"holds 3 images, but .* holds 20 labels",
        ),
    ],
)
def test_a_damaged_file_gets_one_sentence(tmp_path, damage, sentence):
    path = write_mnist(tmp_path) / "train-images-idx3-ubyte"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DatasetError, match=sentence) as caught:
        mnist(tmp_path)
    assert "train-images-idx3-ubyte" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_too_few_images_to_split_are_told(tmp_path):
    with pytest.raises(DatasetError, match="1 training images cannot be split"):
        mnist(write_mnist(tmp_path, train=1))


def test_a_bad_fraction_gets_one_sentence():
    with pytest.raises(InvalidArgumentError, match="`val_fraction` must be > 0 and < 1, got 2"):
        MNISTDataModule(val_fraction=2)


@pytest.mark.parametrize(("count", "fraction", "val"), [(2, 0.01, 1), (2, 0.74, 1), (20, 0.1, 2)])
def test_each_part_keeps_at_least_one_image(tmp_path, count, fraction, val):
    data = mnist(write_mnist(tmp_path, train=count), val_fraction=fraction)
    assert (len(data.train), len(data.val)) == (count - val, val)


def test_a_fraction_that_leaves_nothing_to_train_on_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="2 training images cannot be split"):
        mnist(write_mnist(tmp_path, train=2), val_fraction=0.76)


@pytest.mark.parametrize("stage", ["fit", "validate", "test", "predict"])
def test_each_stage_reads_what_its_loader_needs(tmp_path, stage):
    data = MNISTDataModule(str(write_mnist(tmp_path)), batch_size=4)
    data.setup(stage)
    loaders = {"fit": "train", "validate": "val", "test": "test", "predict": "predict"}
    classes = torch.cat([y for _, y in getattr(data, f"{loaders[stage]}_dataloader")()])
    part = {"fit": "train", "validate": "val"}.get(stage, "test")
    assert len(classes) == len(getattr(data, part))
    assert hasattr(data, "test") == (stage in ("test", "predict"))
