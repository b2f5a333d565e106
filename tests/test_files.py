"""Feature files are read whole or refused with the culprit and the remedy."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from widthwise import files
from widthwise.errors import DataError, UsageError

MATRIX = np.arange(60, dtype=np.float32).reshape(20, 3)
IDS = np.arange(100, 120)


def npy(path, matrix=MATRIX):
    np.save(path, matrix)
    return path


def parquet(path, columns):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path)
    return path


def test_every_format_gives_the_same_matrix(tmp_path):
    np.savez(tmp_path / "a.npz", matrix=MATRIX, ids=IDS)
    save_file({"matrix": torch.from_numpy(MATRIX), "ids": torch.from_numpy(IDS)}, tmp_path / "a.safetensors")
    parquet(tmp_path / "a.parquet", {"x": MATRIX[:, 0], "y": MATRIX[:, 1], "ids": IDS, "z": MATRIX[:, 2]})
    parquet(tmp_path / "lists.parquet", {"features": list(MATRIX), "ids": IDS, "label": ["a"] * 20})
    for path in (npy(tmp_path / "a.npy"), *(tmp_path / f"a.{s}" for s in ("npz", "safetensors", "parquet"))):
        assert np.array_equal(np.asarray(files.features(path).matrix), MATRIX)
    for name in ("a.npz", "a.safetensors", "a.parquet", "lists.parquet"):
        found = files.features(tmp_path / name)
        assert np.array_equal(found.ids, IDS)
        assert found.matrix.shape == (20, 3)


def test_npy_files_are_mapped_not_read(tmp_path):
    assert isinstance(files.features(npy(tmp_path / "a.npy")).matrix, np.memmap)


@pytest.mark.parametrize("kind", [">f4", "<f2", "<i8", "|b1", ">i2"])
def test_any_real_numbers_will_do(tmp_path, kind):
    found = files.features(npy(tmp_path / "a.npy", (MATRIX % 2).astype(kind)))
    assert np.array_equal(torch.from_numpy(np.array(found.matrix)).double().numpy(), MATRIX % 2)


def test_half_precision_tensors_will_do(tmp_path):
    save_file({"features": torch.ones(4, 2, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    assert files.features(tmp_path / "a.safetensors").matrix.shape == (4, 2)


def test_one_of_several_arrays_is_named_by_its_key(tmp_path):
    np.savez(tmp_path / "a.npz", wide=MATRIX, narrow=MATRIX[:, :1])
    save_file({"wide": torch.ones(3, 2), "bias": torch.ones(3), "ids": torch.arange(3)}, tmp_path / "a.safetensors")
    assert files.features(tmp_path / "a.npz", "narrow").matrix.shape == (20, 1)
    assert files.features(tmp_path / "a.safetensors").matrix.shape == (3, 2), "the only matrix"
    with pytest.raises(UsageError, match=r"a.npz has 2 matrices \(wide, narrow\); name one with --key"):
        files.features(tmp_path / "a.npz")
    with pytest.raises(UsageError, match=r'has no array "wise"; it has wide, narrow. Did you mean wide\?'):
        files.features(tmp_path / "a.npz", "wise")
    with pytest.raises(UsageError, match="holds one array and no names"):
        files.features(npy(tmp_path / "a.npy"), "wide")


@pytest.mark.parametrize("suffix", ["pt", "pkl", "pth", "joblib"])
def test_a_pickle_is_refused_unread_with_what_to_do_instead(tmp_path, suffix):
    path = tmp_path / f"wide.{suffix}"
    path.write_bytes(pickle.dumps(MATRIX))
    with pytest.raises(UsageError, match=r"is a pickle, which can run any code .* numpy.save\(\"wide.npy\""):
        files.features(path)


def test_an_object_array_is_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([{}, []], dtype=object), allow_pickle=True)
    with pytest.raises(DataError, match=r"cannot be read as a .npy file"):
        files.features(tmp_path / "a.npy")


@pytest.mark.parametrize("suffix", ["npy", "npz", "safetensors", "parquet"])
@pytest.mark.parametrize("kept", [0, 40, -10])
def test_a_truncated_file_is_named(tmp_path, suffix, kept):
    path = tmp_path / f"a.{suffix}"
    if suffix == "npy":
        npy(path)
    elif suffix == "npz":
        np.savez(path, matrix=MATRIX)
    elif suffix == "safetensors":
        save_file({"matrix": torch.from_numpy(MATRIX)}, path)
    else:
        parquet(path, {"x": MATRIX[:, 0]})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(DataError, match=rf"a\.{suffix} cannot be read as a \.{suffix} file .*Write it again, whole"):
        files.features(path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_named_by_file_row_and_column(tmp_path, bad):
    matrix = np.zeros((10000, 3), np.float32)
    matrix[9001, 2] = bad
    save_file({"features": torch.from_numpy(matrix)}, tmp_path / "a.safetensors")
    for path in (npy(tmp_path / "a.npy", matrix), tmp_path / "a.safetensors"):
        with pytest.raises(DataError, match=rf"{path}: row 9001, column 2 is {bad}; features must be finite"):
            files.features(path)


def test_an_empty_cell_of_parquet_is_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"x": [1.0, None, 3.0]})
    with pytest.raises(DataError, match='row 1 of column "x" is empty'):
        files.features(path)


def test_columns_that_are_not_numbers_are_left_out_and_said(tmp_path, caplog):
    path = parquet(tmp_path / "a.parquet", {"x": [1.0, 2.0], "name": ["a", "b"]})
    assert files.features(path).matrix.shape == (2, 1)
    assert "columns that are not numbers are left out: name" in caplog.text
    with pytest.raises(DataError, match="has no columns of numbers, only name"):
        files.features(parquet(tmp_path / "b.parquet", {"name": ["a"]}))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros(5), r"shape \(5,\); it must be \(rows, features\)"),
        (np.zeros((5, 0)), r"shape \(5, 0\)"),
        (np.zeros((2, 2), complex), "complex128; features must be real numbers"),
        (np.array([["a"]]), "features must be real numbers"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(tmp_path, matrix, message):
    with pytest.raises(DataError, match=message):
        files.features(npy(tmp_path / "a.npy", matrix))


def test_a_file_that_is_not_there_has_its_nearest_neighbour_named(tmp_path):
    npy(tmp_path / "wide.npy")
    with pytest.raises(UsageError, match=r"there is no file .*wid.npy. Did you mean wide.npy\?"):
        files.features(tmp_path / "wid.npy")
    with pytest.raises(UsageError, match="is a folder"):
        files.features(tmp_path)
    (tmp_path / "a.csv").write_text("1")
    with pytest.raises(UsageError, match=r"read from .npy, .npz, .safetensors, .parquet files, not .csv"):
        files.features(tmp_path / "a.csv")


def test_rows_that_do_not_match_are_named(tmp_path):
    shifted = IDS.copy()
    shifted[[4, 7]] = shifted[[7, 4]]
    for name, matrix, ids in (("a", MATRIX, IDS), ("b", MATRIX, shifted), ("c", MATRIX[1:], IDS[1:])):
        np.savez(tmp_path / f"{name}.npz", features=matrix, ids=ids)
    with pytest.raises(DataError, match=r"row 4 is sample 104 in .*a.npz and 107 in .*b.npz; 2 of 20 row ids differ"):
        files.sides(tmp_path / "a.npz", tmp_path / "b.npz")
    with pytest.raises(DataError, match=r"a.npz has 20 rows and .*c.npz has 19"):
        files.sides(tmp_path / "a.npz", tmp_path / "c.npz")
    files.sides(tmp_path / "a.npz", npy(tmp_path / "no_ids.npy"))


@pytest.mark.parametrize("text", ["a\nb\n\nd\n", "group\na\nb\n\nd\n", "a\r\nb\r\n\r\nd\r\n"])
def test_a_column_of_text_may_have_a_header(tmp_path, text):
    (tmp_path / "groups.csv").write_text(text)
    assert files.column(tmp_path / "groups.csv", "groups", 4).tolist() == ["a", "b", "", "d"]


def test_whole_numbers_in_text_are_those_of_an_array(tmp_path):
    (tmp_path / "groups.txt").write_text("10\n9\n-1\n")
    assert files.column(tmp_path / "groups.txt", "groups", 3).tolist() == [10, 9, -1]


def test_a_column_must_have_one_value_a_row(tmp_path):
    npy(tmp_path / "labels.npy", np.arange(4)[:, None])
    assert files.column(tmp_path / "labels.npy", "labels", 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(
        DataError, match=r"labels.npy holds labels of shape \(4,\); there must be one for each of 5 rows"
    ):
        files.column(tmp_path / "labels.npy", "labels", 5)
    with pytest.raises(UsageError, match=r"labels are read from .npy, .txt or .csv"):
        files.column(npy(tmp_path / "labels.npz.npy").rename(tmp_path / "labels.bin"), "labels", 4)
