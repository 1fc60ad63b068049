import zlib

import double
import numpy as np
import pytest

import dlcore as dl
from dlcore import Streams
from dlcore.datasets import mnist1d
from dlcore.random import WORDS, seed_sequence, stream


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


def digest(rng):
    return tuple(rng.integers(0, 2**63, 2).tolist())


KEYS = [
    *[(3, "x", *index) for index in [(), (0,), (0, 0), (0, 0, 0), (0, 0, 0, 0), (1,), (0, 1)]],
    *[(seed, "weights", 0) for seed in (0, 1, 2**32 - 1, 2**32, 2**32 + 1, 2**64, 2**128)],
    *[(1, "weights", i) for i in (1, 2**32 - 1, 2**32, 2**32 + 1, 2**33)],
    *[(3, "noise", *index) for index in [(), (0,), (0, 0), (0, 0, 0), (0, 0, 0, 0)]],
    *[(3, purpose) for purpose in ("", ";", "x;", ";x", "x,0", "3;x", "\udcff", "é", "e\u0301")],
    *[(3, "batches"), (3, "batches", 0), (3, "batches", 0, 0)],
    *[(3, "augment"), (3, "augment", 0), (3, "augment", 0, 0)],
    *[(10**5000, "x"), (10**5000 + 1, "x")],
    # words that carry: 2**32 is the words 0, 1
    *[(0, "noise", 1, 0, 2), (0, "noise", 2**32, 2), (0, "noise", 0, 1, 2)],
    # two purposes of one checksum
    *[(3, "plumless"), (3, "buckeroo"), (3, "plumless", 1), (3, "buckeroo", 1)],
]


def test_no_two_keys_share_a_stream():
    """Lengths of the index, numbers of several words, purposes of one checksum, odd letters."""
    assert zlib.crc32(b"plumless") == zlib.crc32(b"buckeroo")
    assert len(set(KEYS)) == len(KEYS)
    assert len({digest(stream(*key)) for key in KEYS}) == len(KEYS)


def test_keys_of_the_book_are_as_they_were():
    """Seed, checksum and index as plain words: all that chapters draw from."""
    for key in [(3, "weights", 2), (7, "lsuv", 0), (0, "batches", 9), (2**32 - 1, "augment", 1)]:
        plain = np.random.default_rng([key[0], zlib.crc32(key[1].encode()), *key[2:]])
        assert digest(stream(*key)) == digest(plain)
    noise = np.random.default_rng([5, zlib.crc32(b"noise"), 1, 0, 4])
    assert digest(stream(5, "noise", 1, 0, 4)) == digest(noise)
    plain_words = [zlib.crc32(purpose.encode()) for purpose in WORDS]
    assert len(set(plain_words)) == len(WORDS)
    assert min(plain_words) > 100  # beside those of data sets


def test_kinds_of_text_and_numbers_are_one():
    assert digest(stream(np.int64(3), np.str_("x"), np.uint8(1))) == digest(stream(3, "x", 1))


def test_data_sets_have_a_stream_for_each_seed_and_purpose():
    keys = [(s, p) for s in (0, 1, 5, 2**32, 5 * 2**32, 2**32 + 1, 2**64) for p in range(7)]
    found = {digest(np.random.default_rng(seed_sequence("seed", *key))) for key in keys}
    assert len(found) == len(keys)
    old = np.random.default_rng(np.random.SeedSequence([5, 3]))
    assert digest(np.random.default_rng(seed_sequence("seed", 5, 3))) == digest(old)
    large = [
        mnist1d(seed, train=10, valid=0, test=0).x_train.tobytes() for seed in (0, 2**32, 2**33)
    ]
    assert len(set(large)) == 3


def test_device_keys_tell_index_and_seeds_apart():
    """Index and seeds are lists of any length: where one ends and the other begins counts."""
    backend = dl.Backend("double", double.xp)
    keys = [
        ((3,), (1, 2)), ((2, 3), (1,)), ((1, 2, 3), ()), ((3,), (1, 2, 0)), ((3, 0), (1, 2)),
        ((2**32,), (1,)), ((0, 1), (1,)), ((1,), (0, 1)), ((1,), (2**32,)),
    ]  # fmt: skip
    draws = [
        backend.to_numpy(
            dl.Noise(Streams(seeds), backend, "noise", *index).uniform((len(seeds), 4))
        )
        for seeds, index in keys
    ]
    assert len({draw.ravel()[:2].tobytes() for draw in draws}) == len(keys)


def test_streams_are_their_own():
    seeds = np.array([4, 7, 4])
    streams = Streams(seeds)
    seeds[:] = 0
    assert streams.seeds == (4, 7, 4)
    with pytest.raises(ValueError, match="read-only"):
        streams.index[0] = 1
