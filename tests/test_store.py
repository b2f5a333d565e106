"""A result is there whole or not at all, whatever happens to the process, the disk or the file."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from widthwise import store as stores
from widthwise.errors import StorageError, UsageError
from widthwise.store import Store, save_tensors, write_whole

FACTS = {"answer": 42}


def write(folder: Path) -> None:
    save_tensors(folder / "weights.safetensors", {"w": torch.arange(3.0)})
    (folder / "history.json").write_text('[{"epoch": 1}]')


def tree(root: Path) -> dict[str, bytes]:
    return {
        str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file() and p.suffix != ".lock"
    }


def fail(*_, **__):
    raise AssertionError("made again")


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_what_is_made_is_found_with_its_facts_files_and_provenance(store):
    made = store.make("runs", "a", write, FACTS)
    found = Store(store.root).get("runs", "a")
    assert found == made
    assert found.facts == FACTS
    assert torch.equal(found.tensors("weights")["w"], torch.arange(3.0))
    assert found.json("history") == [{"epoch": 1}]
    assert set(found.files) == {"weights.safetensors", "history.json"}
    assert found.provenance["versions"]["torch"] == torch.__version__
    assert found.provenance["seconds"] >= 0
    assert (store.keys("runs"), store.keys("features")) == (["a"], [])


def test_facts_may_be_told_after_writing(store):
    facts = {}
    made = store.make("data", "a", lambda folder: facts.update(checksum="c"), lambda: facts)
    assert made.facts == {"checksum": "c"}


def test_what_is_there_is_neither_made_again_nor_overwritten(store):
    store.make("runs", "a", write, FACTS)
    before = tree(store.root)
    assert store.make("runs", "a", fail, {"answer": 0}).facts == FACTS
    assert tree(store.root) == before


def test_reading_makes_nothing(tmp_path):
    store = Store(tmp_path / "store")
    assert store.get("runs", "a") is None
    assert store.keys("runs") == []
    assert not store.root.exists()


def test_a_store_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="is a file; name a folder"):
        Store(tmp_path / "file")


# Whole or not at all ------------------------------------------------------------------------------------


def test_a_writer_that_fails_leaves_nothing(store):
    def broken(folder: Path) -> None:
        write(folder)
        raise ValueError("halfway")

    with pytest.raises(ValueError, match="halfway"):
        store.make("runs", "a", broken, FACTS)
    assert tree(store.root) == {}
    assert store.get("runs", "a") is None
    store.make("runs", "a", write, FACTS)


def test_a_writer_that_is_killed_leaves_nothing_that_counts_and_its_rest_is_swept_up(store):
    code = f"""
import time
from widthwise.store import Store
def write(folder):
    (folder / "half.json").write_text("[1, ")
    print("halfway", flush=True)
    time.sleep(60)
Store({str(store.root)!r}).make("runs", "a", write, {{}})
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "halfway\n"
        process.send_signal(signal.SIGKILL)
    assert store.get("runs", "a") is None
    assert store.keys("runs") == []
    store.make("runs", "a-b", write, FACTS)
    assert len(tree(store.root / "partial")) == 1, "another's rest is not ours to sweep"
    store.make("runs", "a", write, FACTS)
    assert tree(store.root / "partial") == {}


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("call", ["replace", "rename", "fsync", "mkdir"])
def test_a_disk_that_is_full_or_cannot_be_written_is_one_clear_error_and_leaves_the_store(
    store, monkeypatch, code, call
):
    store.make("runs", "there", write, FACTS)
    before = tree(store.root)

    def refuse(*_, **__):
        raise OSError(code, os.strerror(code))

    owner = Path if call in ("rename", "mkdir") else os
    with monkeypatch.context() as patch:
        patch.setattr(owner, call, refuse)
        with pytest.raises(
            StorageError, match=f"cannot write to .*{os.strerror(code)}.*--store; what was finished"
        ) as told:
            store.make("runs", "a", write, FACTS)
    assert told.value.exit_code == 1
    assert tree(store.root) == before
    store.make("runs", "a", write, FACTS)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS])
def test_a_disk_that_fills_under_tensors_is_the_same_error(store, monkeypatch, code):
    def refuse(*_, **__):
        raise RuntimeError(f"Error while serializing: I/O error: {os.strerror(code)} (os error {code})")

    monkeypatch.setattr(stores, "save_file", refuse)
    with pytest.raises(StorageError, match=os.strerror(code)):
        store.save("features", "a", {"x": torch.ones(2)}, {})
    assert tree(store.root) == {}


def test_a_folder_below_a_file_cannot_be_a_store(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match=r"cannot write to .*file/store: Not a directory"):
        Store(tmp_path / "file" / "store").make("runs", "a", write, FACTS)


@pytest.mark.parametrize("writer", [write_whole, lambda path, data: save_tensors(path, {"x": torch.ones(2)})])
def test_a_file_is_replaced_whole_or_stays_as_it_was(tmp_path, monkeypatch, writer):
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(OSError, match="full"):
            writer(path, b"new")
    assert tree(tmp_path) == {"file": b"old"}
    writer(path, b"new")
    assert list(tree(tmp_path)) == ["file"]
    assert path.read_bytes() != b"old"


# Damage -------------------------------------------------------------------------------------------------


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda folder: flip(folder / "weights.safetensors"), "weights.safetensors is not what was written"),
        (lambda folder: (folder / "history.json").write_text("[]"), "history.json is not what was written"),
        (lambda folder: (folder / "weights.safetensors").unlink(), "No such file"),
        (lambda folder: (folder / "entry.json").write_text('{"facts": {}}'), "'files'"),
        (lambda folder: (folder / "entry.json").write_text('{"fa'), "Unterminated string"),
        (lambda folder: (folder / "entry.json").unlink(), "No such file"),
    ],
)
def test_a_damaged_result_is_named_set_aside_and_made_again(store, caplog, harm, told):
    store.make("runs", "a", write, FACTS)
    harm(store.root / "runs" / "a")
    again = Store(store.root)
    assert again.get("runs", "a") is None
    assert f"{store.root / 'runs' / 'a'} is damaged" in caplog.text
    assert told in caplog.text
    assert len(list((store.root / "damaged").iterdir())) == 1
    assert again.make("runs", "a", write, FACTS).facts == FACTS
    assert again.get("runs", "a") is not None


def test_another_result_is_untouched_by_damage(store):
    store.make("runs", "a", write, FACTS)
    store.make("runs", "b", write, FACTS)
    flip(store.root / "runs" / "a" / "weights.safetensors")
    assert Store(store.root).get("runs", "a") is None
    assert Store(store.root).get("runs", "b") is not None


# Many processes -----------------------------------------------------------------------------------------


def test_two_processes_do_a_job_once_and_both_have_it(store, tmp_path):
    code = f"""
import json, time
from pathlib import Path
from widthwise.store import Store
def write(folder):
    with open({str(tmp_path / "count")!r}, "a") as file:
        file.write("made\\n")
    time.sleep(0.2)
    (folder / "x.json").write_text("1")
for key in ("a", "b", "c"):
    print(json.dumps(dict(Store({str(store.root)!r}).make("runs", key, write, {{"by": time.time()}}).facts)))
"""
    both = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    first, second = (process.communicate(timeout=60)[0] for process in both)
    assert [process.returncode for process in both] == [0, 0]
    assert first == second
    assert (tmp_path / "count").read_text().count("made") == 3


def test_a_lock_is_let_go_by_who_fails_under_it(store):
    with pytest.raises(ValueError, match="inside"), store.lock("job"):
        raise ValueError("inside")
    start = time.monotonic()
    with store.lock("job"), store.lock("another job"):
        pass
    assert time.monotonic() - start < 5


def test_unfinished_work_has_a_folder_that_stays(store):
    write_whole(store.partial("training-1") / "checkpoint", b"step 5")
    assert (Store(store.root).partial("training-1") / "checkpoint").read_bytes() == b"step 5"


def test_a_run_that_is_not_there_is_refused_with_those_there_are(store):
    store.make("runs", "mlp-w1-s0-12345678", write, FACTS)
    with pytest.raises(UsageError, match='holds no run "mlp"; it has mlp-w1-s0-12345678'):
        store.load("mlp")


def test_an_entry_is_readable_by_anyone(store):
    made = store.make("runs", "a", write, FACTS)
    record = json.loads((made.path / "entry.json").read_text())
    assert record["facts"] == FACTS
    assert set(record) == {"facts", "files", "provenance"}


def test_all_of_a_kind_is_deleted_and_counted_and_nothing_else(store):
    for key in ("a", "b"):
        size = sum(file.stat().st_size for file in store.make("moments", key, write, FACTS).path.iterdir())
    store.make("runs", "a", write, FACTS)
    before = {name: data for name, data in tree(store.root).items() if name.startswith("runs")}
    assert store.clear("moments") == (2, pytest.approx(2 * size, abs=20))  # seconds are written in more digits or fewer
    assert tree(store.root) == before
    assert store.clear("moments") == (0, 0)
    assert store.make("moments", "a", write, FACTS).facts == FACTS
