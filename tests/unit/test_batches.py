"""Raw batches, decoded as far as memory allows."""

from __future__ import annotations

from typing import Any

import bson
import pytest
from bson.codec_options import CodecOptions

from service.store.batches import fitting

OPTIONS: CodecOptions[dict[str, Any]] = CodecOptions()


def batch(*numbers: int) -> bytes:
    return b"".join(bson.encode({"n": n}) for n in numbers)


(((_, SIZE),)) = fitting([batch(1)], 0, OPTIONS)


def numbers(batches: list[bytes], most_documents: float) -> list[int]:
    found = list(fitting(batches, most_documents * SIZE, OPTIONS))
    assert {size for _, size in found} <= {SIZE}
    return [document["n"] for document, _ in found]


@pytest.mark.parametrize(
    ("most", "expected"),
    [
        (0, [1]),
        (-5, [1]),
        (0.5, [1]),
        (1, [1]),
        (2.9, [1, 2]),
        (3, [1, 2, 3]),
        (3.9, [1, 2, 3]),
        (4, [1, 2, 3, 4]),
        (5, [1, 2, 3, 4, 5]),
        (float("inf"), [1, 2, 3, 4, 5]),
    ],
)
def test_as_many_as_have_the_bytes_and_one_at_least(most: float, expected: list[int]) -> None:
    assert numbers([batch(1, 2, 3), batch(4, 5)], most) == expected


def test_a_batch_that_is_not_needed_is_not_asked_for() -> None:
    def batches() -> Any:
        yield batch(1, 2, 3)
        raise AssertionError("the next one was asked for")

    assert numbers(batches(), 2) == [1, 2]


def test_nothing_is_nothing() -> None:
    assert numbers([], 3) == numbers([b""], 3) == []


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("x" * 1_000_000, 1_000_000, 1_001_000),
        ([{"ab": n} for n in range(10_000)], 1_300_000, 5_200_000),
        ([f"item {n}" for n in range(10_000)], 330_000, 2_000_000),
    ],
)
def test_what_is_said_of_the_memory_is_near_the_truth(value: Any, least: int, most: int) -> None:
    (((_, size)),) = fitting([bson.encode({"payload": value})], 0, OPTIONS)
    assert least <= size <= most
