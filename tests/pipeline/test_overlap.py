from __future__ import annotations

import threading
import time

import pytest

from vqtok.pipeline.overlap import overlapped


@pytest.mark.parametrize("workers", [1, 4])
def test_results_come_in_order(workers: int) -> None:
    def slow(value: int) -> int:
        time.sleep((value * 7 % 5) / 1000)
        return value * value

    assert list(overlapped(slow, range(50), workers)) == [value * value for value in range(50)]


def test_it_overlaps_and_is_bounded() -> None:
    """With the consumer standing still, exactly the items ahead are taken and worked on."""
    taken: list[int] = []
    done = threading.Semaphore(0)

    def items():
        for value in range(100):
            taken.append(value)
            yield value

    def work(value: int) -> int:
        done.release()
        return value

    results = overlapped(work, items(), 2)
    assert next(results) == 0
    for _ in range(5):
        assert done.acquire(timeout=10)
    assert taken == [0, 1, 2, 3, 4]
    results.close()
    assert len(taken) == 5


def test_the_weight_ahead_is_bounded() -> None:
    weights = [3, 3, 3, 9, 50, 1, 10, 0, 0, 4, 6]
    given = 0  # to the threads
    lock = threading.Lock()

    def work(position: int) -> int:
        nonlocal given
        with lock:
            given = max(given, position + 1)
        return position

    results = overlapped(work, range(len(weights)), 3, weights.__getitem__, 10)
    for position, result in enumerate(results):
        assert result == position
        ahead = weights[position + 1 : given]
        assert sum(ahead) <= 10 or len(ahead) == 1
    assert given == len(weights)


def test_an_exception_comes_where_its_result_would() -> None:
    results = overlapped(lambda value: 1 // value, [1, 1, 0, 1], 2)
    assert [next(results), next(results)] == [1, 1]
    with pytest.raises(ZeroDivisionError):
        next(results)
