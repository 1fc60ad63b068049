import numpy as np
import pytest

from dlcore import Streams
from dlcore.random import stream


def test_same_key_same_numbers():
    np.testing.assert_array_equal(stream(3, "a", 1).random(9), stream(3, "a", 1).random(9))


def test_other_keys_other_numbers():
    """Seed, purpose and index each count; no two of 600 streams share a first draw."""
    keys = [
        (s, p, i) for s in range(20) for p in ("weights", "batches", "dropout") for i in range(10)
    ]
    assert len({stream(s, p, i).random() for s, p, i in keys}) == len(keys)


def test_streams_are_independent():
    x = np.array(
        [stream(s, p).standard_normal(1000) for s in range(10) for p in ("weights", "batches")]
    )
    between = np.corrcoef(x)[np.triu_indices(len(x), 1)]
    assert abs(between).max() < 5 / np.sqrt(1000)


def test_draw_stacks_one_per_replica():
    found = Streams([4, 7, 4]).draw("w", lambda rng: rng.random((2, 3)))
    assert found.shape == (3, 2, 3)
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.array_equal(found[0], found[1])
    for seed, row in zip([4, 7], found, strict=False):
        np.testing.assert_array_equal(row, stream(seed, "w").random((2, 3)))


def test_plain_network_has_no_axis():
    streams = Streams(4)
    assert streams.shape == ()
    np.testing.assert_array_equal(
        streams.draw("w", lambda rng: rng.random(3)),
        Streams([4]).draw("w", lambda rng: rng.random(3))[0],
    )


def test_equal_seeds_draw_once():
    calls = []
    Streams([5, 5, 6, 5]).draw("w", lambda rng: calls.append(1) or rng.random(1))
    assert len(calls) == 2


@pytest.mark.parametrize("seeds", [range(3), (0, 1, 2), np.arange(3), [np.int64(0), 1, 2]])
def test_kinds_of_sequences(seeds):
    assert Streams(seeds).seeds == (0, 1, 2)


def test_draws_do_not_depend_on_history():
    """The digest of one stream: a change of the keys would change every stored result."""
    assert stream(0, "weights", 0).integers(0, 2**32, 3).tolist() == FIRST


FIRST = [3813292653, 3010760540, 313492144]
