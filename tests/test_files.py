"""Feature files and folders are read as their rows are asked for, or refused with the culprit and the remedy."""

import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from widthwise import files
from widthwise.columns import reader
from widthwise.errors import DataError, UsageError
from widthwise.measures.span_error import span_error

MATRIX = np.arange(60, dtype=np.float32).reshape(20, 3)
IDS = np.arange(100, 120)


def npy(path, matrix=MATRIX):
    np.save(path, matrix)
    return path


def parquet(path, columns, **options):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table(columns), path, **options)
    return path


def test_every_format_gives_the_same_matrix(tmp_path):
    np.savez(tmp_path / "a.npz", matrix=MATRIX, ids=IDS)
    save_file({"matrix": torch.from_numpy(MATRIX), "ids": torch.from_numpy(IDS)}, tmp_path / "a.safetensors")
    parquet(tmp_path / "a.parquet", {"x": MATRIX[:, 0], "y": MATRIX[:, 1], "ids": IDS, "z": MATRIX[:, 2]})
    parquet(tmp_path / "lists.parquet", {"features": list(MATRIX), "ids": IDS, "label": ["a"] * 20})
    for path in (npy(tmp_path / "a.npy"), *(tmp_path / f"a.{s}" for s in ("npz", "safetensors", "parquet"))):
        assert np.array_equal(np.asarray(files.features(path)[:]), MATRIX)
    for name in ("a.npz", "a.safetensors", "a.parquet", "lists.parquet"):
        found = files.features(tmp_path / name)
        assert np.array_equal(found.ids, IDS)
        assert found.shape == (20, 3)


def test_npy_files_are_mapped_not_read(tmp_path):
    assert isinstance(files.features(npy(tmp_path / "a.npy"))._rows(0), np.memmap)


@pytest.mark.parametrize("kind", [">f4", "<f2", "<i8", "|b1", ">i2", "<u2", "<u4", ">u8"])
def test_any_real_numbers_will_do(tmp_path, kind):
    found = files.features(npy(tmp_path / "a.npy", (MATRIX % 2).astype(kind)))
    assert np.array_equal(found[:].double().numpy(), MATRIX % 2)


def test_half_precision_tensors_will_do(tmp_path):
    save_file({"features": torch.ones(4, 2, dtype=torch.bfloat16)}, tmp_path / "a.safetensors")
    assert files.features(tmp_path / "a.safetensors").shape == (4, 2)


def test_one_of_several_arrays_is_named_by_its_key(tmp_path):
    np.savez(tmp_path / "a.npz", wide=MATRIX, narrow=MATRIX[:, :1])
    save_file({"wide": torch.ones(3, 2), "bias": torch.ones(3), "ids": torch.arange(3)}, tmp_path / "a.safetensors")
    assert files.features(tmp_path / "a.npz", "narrow").shape == (20, 1)
    assert files.features(tmp_path / "a.safetensors").shape == (3, 2), "the only matrix"
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
    matrix = np.zeros((5000, 3), np.float32)
    matrix[4001, 2] = bad
    save_file({"features": torch.from_numpy(matrix)}, tmp_path / "a.safetensors")
    shards(tmp_path / "shards", matrix, 3000)
    good = npy(tmp_path / "good.npy", np.random.default_rng(0).normal(size=(5000, 2)))
    places = {npy(tmp_path / "a.npy", matrix): 4001, tmp_path / "a.safetensors": 4001, tmp_path / "shards": 1001}
    for path, row in places.items():
        named = path / "part1.npy" if path.is_dir() else path
        with pytest.raises(DataError, match=rf"target: row {row} of {named}, column 2 is {bad}; features must be fin"):
            span_error(files.features(good), files.features(path))


def test_a_number_in_test_rows_that_is_not_finite_is_named_by_their_file(tmp_path):
    fit, scored = npy(tmp_path / "fit.npy", np.eye(60)), np.eye(60)
    scored[7, 3] = np.nan
    sides = [files.features(fit), files.features(fit)]
    tests = {"source_test": files.features(fit), "target_test": files.features(npy(tmp_path / "test.npy", scored))}
    with pytest.raises(DataError, match=r"target: row 7 of .*test\.npy, column 3 is nan; features must be finite"):
        span_error(*sides, split="test", **tests)


def test_an_empty_cell_of_parquet_is_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"x": [1.0, None, 3.0]})
    with pytest.raises(DataError, match='row 1 of column "x" is empty'):
        files.features(path)[:]
    path = parquet(tmp_path / "b.parquet", {"features": [[1.0, 2.0], None]})
    with pytest.raises(DataError, match='row 1 of column "features" is empty'):
        files.features(path)[:]
    path = parquet(tmp_path / "c.parquet", {"features": [[1.0, 2.0], [3.0, None]]})
    with pytest.raises(DataError, match='row 1 of column "features" is empty'):
        files.features(path)[:]


def test_lists_of_different_lengths_are_named(tmp_path):
    path = parquet(tmp_path / "a.parquet", {"features": [[1.0, 2.0], [3.0]]})
    with pytest.raises(DataError, match='row 1 of column "features" has 1 features, not 2'):
        files.features(path)[:]


def test_columns_that_are_not_numbers_are_left_out_and_said(tmp_path, caplog):
    path = parquet(tmp_path / "a.parquet", {"x": [1.0, 2.0], "name": ["a", "b"]})
    assert files.features(path)[:].shape == (2, 1)
    assert "columns that are not numbers are left out: name" in caplog.text
    with pytest.raises(DataError, match="has no columns of numbers, only name"):
        files.features(parquet(tmp_path / "b.parquet", {"name": ["a"]}))


@pytest.mark.parametrize(
    ("matrix", "message"),
    [
        (np.zeros(5), r"shape \(5,\); it must be a matrix \(rows, features\)"),
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
    with pytest.raises(UsageError, match="is a folder; labels are read from one file"):
        files.column(tmp_path, "labels", 4)
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


# Read as asked for, and in shards -----------------------------------------------------------------------


def shards(folder, matrix, rows, start=0):
    """Write a matrix as files of some rows each: part0.npy, part1.npy, ..."""
    folder.mkdir()
    for k in range(-(-len(matrix) // rows)):
        npy(folder / f"part{start + k}.npy", matrix[k * rows : (k + 1) * rows])
    return folder


def written(tmp_path, kind, matrix):
    path = tmp_path / f"a.{kind.partition(' ')[0]}"
    if kind == "npy columns first":
        npy(path, np.asfortranarray(matrix))
    elif kind == "npy":
        npy(path, matrix)
    elif kind == "npz":
        np.savez(path, matrix=matrix)
    elif kind == "npz compressed":
        np.savez_compressed(path, matrix=matrix)
    elif kind == "safetensors":
        save_file({"matrix": torch.from_numpy(matrix)}, path)
    elif kind == "parquet lists":
        parquet(path, {"features": list(matrix)}, row_group_size=700)
    else:
        parquet(path, {f"c{j}": matrix[:, j] for j in range(matrix.shape[1])}, row_group_size=700)
    return path


KINDS = ["npy", "npy columns first", "npz", "npz compressed", "safetensors", "parquet", "parquet lists"]


@pytest.mark.parametrize("kind", KINDS)
def test_any_rows_of_a_file_are_those_of_the_matrix(tmp_path, kind):
    matrix = np.random.default_rng(0).normal(size=(5000, 3))
    found = files.features(written(tmp_path, kind, matrix))
    for start, stop in [(0, 2048), (2048, 4096), (4096, 6000), (10, 20), (4999, 5000), (650, 750), (20, 20), (0, 5000)]:
        assert np.array_equal(found[start:stop], matrix[start:stop]), (start, stop)
    picked = torch.tensor([4000, 3, 3, 700])
    assert np.array_equal(reader(found)[picked], matrix[picked])


def test_uncompressed_archives_are_mapped_not_read(tmp_path):
    assert isinstance(files.features(written(tmp_path, "npz", MATRIX))._rows(0), np.memmap)
    assert not isinstance(files.features(written(tmp_path, "npz compressed", MATRIX))._rows(0), np.memmap)


def test_a_file_larger_than_memory_is_opened_at_once(tmp_path):
    np.lib.format.open_memmap(tmp_path / "a.npy", "w+", np.float32, (200_000_000, 100))  # sparse: 80 GB of holes
    found = files.features(tmp_path / "a.npy")
    assert found.shape == (200_000_000, 100)
    assert found[150_000_000:150_000_002].tolist() == [[0.0] * 100] * 2


@pytest.mark.parametrize("rows", [7, 20, 3])
def test_a_folder_is_its_files_one_after_the_other_in_natural_order(tmp_path, rows):
    folder = shards(tmp_path / "shards", MATRIX, rows, start=8)  # part9 before part10
    (folder / "notes.txt").write_text("left alone")
    (folder / ".hidden.npz").write_text("left alone")
    found = files.features(folder)
    assert (len(found), found.shape) == (20, (20, 3))
    assert np.array_equal(found[:], MATRIX)
    assert np.array_equal(found[5:12], MATRIX[5:12])
    assert found.place(19) == f"row {19 % rows} of {folder / f'part{8 + 19 // rows}.npy'}"


def test_row_ids_of_shards_follow_each_other(tmp_path):
    for k in range(2):
        (tmp_path / "a").mkdir(exist_ok=True)
        np.savez(tmp_path / "a" / f"{k}.npz", features=MATRIX[k * 10 : k * 10 + 10], ids=IDS[k * 10 : k * 10 + 10])
    assert np.array_equal(files.features(tmp_path / "a").ids, IDS)
    np.savez(tmp_path / "b.npz", features=MATRIX, ids=IDS[::-1])
    with pytest.raises(DataError, match=r"row 0 is sample 100 in .*a and 119 in .*b.npz; 20 of 20 row ids differ"):
        files.sides(tmp_path / "a", tmp_path / "b.npz")
    np.savez(tmp_path / "a" / "2.npz", features=MATRIX)
    with pytest.raises(DataError, match=r"2.npz and .*0.npz must both have ids, or neither"):
        files.features(tmp_path / "a")


def test_shards_that_do_not_fit_each_other_are_named(tmp_path):
    folder = shards(tmp_path / "shards", MATRIX, 10)
    npy(folder / "part2.npy", MATRIX[:, :2])
    with pytest.raises(DataError, match=r"part2.npy has 2 features and .*part0.npy has 3; shards must have the same"):
        files.features(folder)
    np.savez(folder / "part2.npz", features=MATRIX)
    with pytest.raises(UsageError, match=r"shards has .npy and .npz files; shards must be of one kind"):
        files.features(folder)


def test_a_damaged_shard_is_named(tmp_path):
    folder = shards(tmp_path / "shards", MATRIX, 10)
    (folder / "part1.npy").write_bytes((folder / "part1.npy").read_bytes()[:-4])
    with pytest.raises(DataError, match=r"part1.npy cannot be read as a .npy file .*Write it again, whole"):
        files.features(folder)


def test_a_file_that_is_damaged_inside_is_named_when_its_rows_are_read(tmp_path):
    path = written(tmp_path, "parquet", np.random.default_rng(0).normal(size=(3000, 3)))
    damaged = bytearray(path.read_bytes())
    damaged[20:20000] = b"\xff" * 19980
    path.write_bytes(damaged)
    found = files.features(path)
    with pytest.raises(DataError, match=r"a.parquet cannot be read as a .parquet file .*Write it again, whole"):
        found[:]


def test_a_folder_without_features_says_what_could_be_there(tmp_path):
    with pytest.raises(UsageError, match=r"has no .npy, .npz, .safetensors, .parquet files in it"):
        files.features(tmp_path)
    (tmp_path / "a.pt").write_bytes(b"")
    with pytest.raises(UsageError, match=r"a.pt is a pickle"):
        files.features(tmp_path)


def test_networks_are_files_or_folders_of_a_folder_in_natural_order(tmp_path):
    for k in (2, 10, 9):
        npy(tmp_path / f"net{k}.npy", MATRIX + k)
    shards(tmp_path / "net11", MATRIX + 11, 7)
    found = files.fleets({"wide": [tmp_path]})["wide"]
    assert [float(network[:1][0, 0]) for network in found] == [2, 9, 10, 11]


@pytest.mark.parametrize("text", ["a\nb\n\nd\n", "group\na\nb\n\nd\n", "a\r\nb\r\n\r\nd\r\n"])
def test_a_column_of_text_may_have_a_header(tmp_path, text):
    (tmp_path / "groups.csv").write_text(text)
    assert files.column(tmp_path / "groups.csv", "groups", 4).tolist() == ["a", "b", "", "d"]


def test_whole_numbers_in_text_are_those_of_an_array(tmp_path):
    (tmp_path / "groups.txt").write_text("10\n9\n-1\n")
    assert files.column(tmp_path / "groups.txt", "groups", 3).tolist() == [10, 9, -1]


def test_a_number_is_no_header_and_several_columns_are_no_column(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("3\n10\n9\n-1\n")
    with pytest.raises(DataError, match=r"labels of shape \(4,\); there must be one for each of 3 rows"):
        files.column(path, "labels", 3)
    path.write_text("id,label\n1,a\n2,b\n")
    with pytest.raises(DataError, match=r"labels.csv has several columns; write the labels into a file of their own"):
        files.column(path, "labels", 2)


def test_a_column_must_have_one_value_a_row(tmp_path):
    npy(tmp_path / "labels.npy", np.arange(4)[:, None])
    assert files.column(tmp_path / "labels.npy", "labels", 4).tolist() == [0, 1, 2, 3]
    with pytest.raises(
        DataError, match=r"labels.npy holds labels of shape \(4,\); there must be one for each of 5 rows"
    ):
        files.column(tmp_path / "labels.npy", "labels", 5)
    with pytest.raises(UsageError, match=r"labels are read from .npy, .txt or .csv"):
        files.column(npy(tmp_path / "labels.npz.npy").rename(tmp_path / "labels.bin"), "labels", 4)
