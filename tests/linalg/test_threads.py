"""Work in threads: the same answers in the same order, one thread of PyTorch in each, errors and modes kept."""

import threading
import time

import pytest
import torch

from widthwise.linalg import threads

CPU = torch.device("cpu")


@pytest.mark.parametrize("items", [0, 1, 2, 5, 12])
def test_answers_come_in_the_order_of_their_items(items, count):
    assert threads.each(lambda k: k * k, list(range(items)), count) == [k * k for k in range(items)]


def test_a_piece_has_one_thread_and_those_left_over_have_all(count):
    def look(k):
        return threading.current_thread() is threading.main_thread(), torch.get_num_threads()

    found = threads.each(look, list(range(2 * count + 1)), count)
    assert found[-1] == (True, count)
    assert count == 1 or set(found[: 2 * count]) == {(False, 1)}
    assert torch.get_num_threads() == count


def test_pieces_are_worked_on_at_the_same_time(count):
    barrier = threading.Barrier(count)
    threads.each(lambda k: barrier.wait(timeout=60), list(range(count)), count)


def test_within_a_piece_on_a_card_and_of_large_pieces_there_is_one_at_a_time(count):
    assert threads.count(CPU) == count
    assert threads.count(torch.device("cuda")) == threads.count(CPU, threads.LARGE + 1) == 1
    inner = threads.each(
        lambda k: threads.each(lambda j: threads.count(CPU), [1, 2, 3], threads.count(CPU)),
        list(range(count)),
        count,
    )
    assert inner == [[1, 1, 1]] * count


def test_every_thread_has_a_room_of_its_own_again_and_again(count):
    made = []

    def work(k, room):
        assert not room
        room.append(k)
        time.sleep(0.002)
        return room.pop()

    assert threads.each_in(lambda: made.append([]) or made[-1], work, list(range(9)), count) == list(range(9))
    assert len(made) == count
    with pytest.raises(ZeroDivisionError):
        threads.each_in(list, lambda k, room: 1 / 0, list(range(9)), count)


def test_an_error_is_told_and_the_threads_go_on(count):
    def fails(k):
        time.sleep(0.01)
        raise ValueError(f"item {k}")

    with pytest.raises(ValueError, match="item 0"):
        threads.each(fails, list(range(count)), count)
    assert threads.each(lambda k: -k, list(range(count)), count) == [-k for k in range(count)]


def test_inference_mode_goes_with_the_work(count):
    with torch.inference_mode():
        x = torch.zeros(count)
        threads.each(lambda k: x[k].add_(k), list(range(count)), count)
    assert x.tolist() == list(range(count))
    with torch.no_grad():
        assert threads.each(lambda k: torch.is_grad_enabled(), list(range(count)), count) == [False] * count
