"""CIFAR-10 from small files of the hub's layout: what is read, and what is refused with file and row."""

import io
import sys

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from widthwise import seeds
from widthwise.data import cifar10
from widthwise.errors import DataError, UsageError

ROWS = 13


def pictures(seed, split, n=ROWS):
    shape = (n, 3, 32, 32)
    return torch.randint(256, shape, generator=seeds.stream(seed, split), dtype=torch.uint8)


def encoded(pixels, mode="RGB"):
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels), mode).save(file, "PNG")
    return file.getvalue()


def columns(seed, split):
    """Return the hub's two columns as lists."""
    pixels = pictures(seed, split).permute(0, 2, 3, 1).numpy()
    img = [{"bytes": encoded(one), "path": f"{k}.png"} for k, one in enumerate(pixels)]
    return {"img": img, "label": [k % 10 for k in range(ROWS)]}


def write(folder, seed, **changed):
    """Write both splits; `train={...}` replaces columns of one, None leaves a column out."""
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        table = {**columns(seed, split), **changed.get(split, {})}
        table = {name: column for name, column in table.items() if column is not None}
        parquet.write_table(pa.table(table), folder / f"{split}.parquet")


@pytest.fixture(autouse=True)
def small_batches(monkeypatch):
    monkeypatch.setattr(cifar10, "BATCH", 4)


@pytest.mark.parametrize("folder", ["cifar10", "."])
def test_pixels_and_labels_are_those_that_were_written(folder, tmp_path, seed):
    write(tmp_path / folder, seed)
    whole = cifar10.read(tmp_path)
    assert torch.equal(whole.train, pictures(seed, "train"))
    assert torch.equal(whole.test, pictures(seed, "test"))
    assert whole.train_labels.tolist() == whole.test_labels.tolist() == [k % 10 for k in range(ROWS)]
    assert whole.classes[3] == "cat"


@pytest.mark.parametrize("folder", ["cifar10", "cifar10/plain_text", "plain_text"])
def test_the_hubs_shards_are_read_in_order(folder, tmp_path, seed):
    write(tmp_path, seed)
    (tmp_path / folder).mkdir(parents=True)
    for split, shards in (("train", 2), ("test", 1)):
        table = parquet.read_table(tmp_path / f"{split}.parquet")
        for k in range(shards):
            path = tmp_path / folder / f"{split}-{k:05}-of-{shards:05}.parquet"
            parquet.write_table(table.slice(k * 7, 7) if shards > 1 else table, path)
        (tmp_path / f"{split}.parquet").unlink()
    whole = cifar10.read(tmp_path)
    assert torch.equal(whole.train, pictures(seed, "train"))
    assert len(whole.test) == ROWS


def test_a_missing_shard_is_named(tmp_path, seed):
    write(tmp_path, seed)
    (tmp_path / "train.parquet").rename(tmp_path / "train-00001-of-00003.parquet")
    with pytest.raises(DataError, match=r"1 of 3 files like train-00001-of-00003.parquet"):
        cifar10.read(tmp_path)


@pytest.mark.parametrize("missing", ["train", "test"])
def test_a_missing_file_is_refused_with_where_to_put_it(missing, tmp_path, seed):
    write(tmp_path, seed)
    (tmp_path / f"{missing}.parquet").unlink()
    with pytest.raises(DataError, match=rf"no {missing}.parquet of cifar10 in {tmp_path}.*WIDTHWISE_DATA"):
        cifar10.read(tmp_path)


@pytest.mark.parametrize("size", [0, 3, 2000, -9])
def test_a_truncated_file_is_named(size, tmp_path, seed):
    write(tmp_path, seed)
    path = tmp_path / "train.parquet"
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(DataError, match=rf"{path} cannot be read as a parquet file .*again, whole"):
        cifar10.read(tmp_path)


def test_a_file_damaged_in_the_middle_is_named(tmp_path, seed):
    write(tmp_path, seed)
    path = tmp_path / "test.parquet"
    whole = bytearray(path.read_bytes())
    whole[4:3000] = bytes(2996)
    path.write_bytes(whole)
    with pytest.raises(DataError, match=f"{path}"):
        cifar10.read(tmp_path)


@pytest.mark.parametrize(
    "changed",
    [
        {"img": None, "image": [b"x"] * ROWS},
        {"img": [b"x"] * ROWS},
        {"img": [{"path": "x"}] * ROWS},
        {"label": None},
        {"label": ["cat"] * ROWS},
        {"label": [0.5] * ROWS},
    ],
)
def test_other_columns_are_refused_with_those_there_are(changed, tmp_path, seed):
    write(tmp_path, seed, test=changed)
    with pytest.raises(DataError, match=r"test.parquet has the columns .* needs img \{bytes, path\} and label"):
        cifar10.read(tmp_path)


@pytest.mark.parametrize("label", [-1, 10, None])
def test_a_label_outside_is_refused_with_its_row(label, tmp_path, seed):
    write(tmp_path, seed, train={"label": [*range(9), label, 0, 1, 2]})
    with pytest.raises(DataError, match=rf"train.parquet, row 9: label {label} is not in 0\.\.9"):
        cifar10.read(tmp_path)


@pytest.mark.parametrize(
    ("img", "message"),
    [
        ({"bytes": encoded(np.zeros((32, 31, 3), np.uint8)), "path": "x"}, "an image of 32x31x3, not the 32x32x3"),
        ({"bytes": encoded(np.zeros((32, 32), np.uint8), "L"), "path": "x"}, "an image of 32x32, not the 32x32x3"),
        ({"bytes": encoded(np.zeros((32, 32, 4), np.uint8), "RGBA"), "path": "x"}, "an image of 32x32x4"),
        ({"bytes": b"not an image", "path": "x"}, "img is not an image that can be decoded"),
        ({"bytes": b"", "path": "x"}, "img is not an image that can be decoded"),
        (
            {"bytes": encoded(np.zeros((32, 32, 3), np.uint8))[:60], "path": "x"},
            r"can be decoded \(image file is truncated",
        ),
        ({"bytes": None, "path": "x.png"}, "img has no bytes"),
        (None, "img has no bytes"),
    ],
)
def test_an_image_that_is_none_or_another_is_refused_with_its_row(img, message, tmp_path, seed):
    whole = columns(seed, "train")["img"]
    whole[6] = img
    write(tmp_path, seed, train={"img": whole})
    with pytest.raises(DataError, match=f"train.parquet, row 6: .*{message}"):
        cifar10.read(tmp_path)


def test_a_file_without_rows_is_refused(tmp_path, seed):
    write(tmp_path, seed)
    path = tmp_path / "test.parquet"
    parquet.write_table(parquet.read_table(path).slice(0, 0), path)
    with pytest.raises(DataError, match="the test split of cifar10 has no rows"):
        cifar10.read(tmp_path)


def test_without_a_folder_the_hub_is_asked(monkeypatch, seed):
    features = datasets.Features({"img": datasets.Image(), "label": datasets.Value("int64")})
    splits = {name: datasets.Dataset.from_dict(columns(seed, name), features) for name in ("train", "test")}
    monkeypatch.setattr(datasets, "load_dataset", lambda name: {"uoft-cs/cifar10": splits}[name])
    whole = cifar10.read(None)
    assert torch.equal(whole.train, pictures(seed, "train"))
    assert torch.equal(whole.test, pictures(seed, "test"))


def test_without_a_folder_and_without_the_hub_the_folder_is_asked_for(monkeypatch):
    def load_dataset(name):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"could not be read from the hub \(no route to host\).*WIDTHWISE_DATA"):
        cifar10.read(None)


@pytest.mark.parametrize("package", ["PIL", "pyarrow", "datasets"])
def test_a_missing_package_is_named_with_what_to_install(package, monkeypatch, tmp_path, seed):
    write(tmp_path, seed)
    for name in list(sys.modules):
        if name.split(".")[0] == package:
            monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UsageError, match=r"pip install 'widthwise\[data\]'"):
        cifar10.read(None if package == "datasets" else tmp_path)
