"""A whole study, by processes: the same bytes whoever did it, however often it was killed."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from small import study
from widthwise import fleet
from widthwise.executors import local
from widthwise.executors.base import Progress, Worker, run
from widthwise.store import Store

KILLED = """
import sys
sys.path.insert(0, {tests!r})
from small import study
from widthwise.executors.base import run
from widthwise.store import Store
if __name__ == "__main__":
    over = dict(training=dict(epochs={epochs}, rate=0.1, batch_size=32), studies=["width_gap"])
    print(run(study(**over), Store(sys.argv[1]), jobs={jobs}, save_every=0.1).to_json())
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    store = Store(tmp_path_factory.mktemp("store"))
    told = []
    return store, run(study(), store, jobs=1, listener=told.append), told


def test_a_study_ends_with_rows_findings_networks_and_what_it_was_made_with(done):
    _, results, _ = done
    assert {row.measure for row in results.rows} == {"span_error", "span_gap"}
    assert len(results.findings) == 1
    assert len(results.networks) == 3 + 2 * len({n.seed for n in results.networks if n.width == "1/2"}) / 2
    assert "torch" in results.provenance["versions"]
    assert all(n.history for n in results.networks)


def test_progress_is_told_in_stages_and_ends_at_the_end(done):
    _, _, told = done
    assert [p.stage for p in told if p.done == 0] == ["data", "train", "features", "scores"]
    for stage in ("train", "features", "scores"):
        own = [p for p in told if p.stage == stage]
        assert own[-1].done == pytest.approx(own[-1].total)
        assert [p.done for p in own] == sorted(p.done for p in own)


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(done):
    store, results, _ = done
    told: list[Progress] = []
    assert run(study(), store, jobs=1, listener=told.append).to_json() == results.to_json()
    assert {p.stage for p in told} == {"data"}


def test_what_was_trained_before_counts_as_done(tmp_path):
    store, told = Store(tmp_path), []
    run(study(concatenations={"1/2": 1}), store, jobs=1)
    run(study(), store, jobs=1, listener=told.append)
    trained = [p for p in told if p.stage == "train"]
    assert 0.5 < trained[0].done / trained[0].total < 1
    assert trained[-1].done == pytest.approx(trained[-1].total)


def test_two_processes_give_the_bytes_of_one(done, tmp_path):
    _, results, _ = done
    assert run(study(), Store(tmp_path), jobs=2).to_json() == results.to_json()


def test_an_error_in_a_worker_is_the_error_of_the_run(tmp_path):
    jobs = [_Fails(), _Fails()]
    with pytest.raises(RuntimeError, match="by design"):
        local.perform(jobs, Worker(str(tmp_path), study().data), count=2, listener=lambda p: None)


class _Fails:
    stage, units = "train", 1.0

    def perform(self, worker, tell):
        raise RuntimeError("failed by design")


def killed_and_restarted(folder: Path, kills: int, epochs: int, jobs: int, seed: int) -> tuple[str, list[int]]:
    """Return the scores after so many kill -9 at random moments, and the steps of checkpoints met on the way."""
    script = folder / "study.py"
    script.write_text(KILLED.format(tests=str(Path(__file__).parents[1]), epochs=epochs, jobs=jobs))
    draw, met = random.Random(seed), []
    store = folder / "store"
    for _ in range(kills):
        process = subprocess.Popen([sys.executable, script, store], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        before = max((c.step for c in fleet.checkpoints(Store(store)).values()), default=0)
        while time.monotonic() < deadline and process.poll() is None:  # let it get a little further
            now = {c.step for c in fleet.checkpoints(Store(store)).values()}
            if (now and max(now) != before) or (not now and list((store / "runs").glob("*"))):
                break
            time.sleep(0.05)
        time.sleep(0.4 * draw.random())
        process.send_signal(signal.SIGKILL)
        process.wait()
        time.sleep(1.5)  # workers leave with their parent
        met += [c.step for c in fleet.checkpoints(Store(store)).values()]
    end = subprocess.run([sys.executable, script, store], capture_output=True, text=True, check=True)
    return end.stdout, met


@pytest.mark.parametrize(
    ("kills", "epochs"),
    [pytest.param(1, 300, id="once"), pytest.param(10, 500, id="ten-times", marks=pytest.mark.slow)],
)
def test_killed_at_random_moments_every_restart_goes_on_and_the_scores_are_those_of_no_interruption(
    tmp_path, seed, kills, epochs
):
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    whole, _ = killed_and_restarted(tmp_path / "whole", 0, epochs, 1, seed)
    cut, met = killed_and_restarted(tmp_path / "cut", kills, epochs, 1, seed)
    assert met, "no kill fell inside a training"
    assert cut == whole
