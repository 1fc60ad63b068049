"""The data of the explorables: small, complete, and what the optimizers' equations say."""

import json

import numpy as np
import pytest

import dlcore as dl
from book import explorables


@pytest.fixture(scope="module")
def data():
    return json.loads(explorables.as_json())


def test_the_file_is_small():
    assert 20_000 < len(explorables.as_json().encode()) <= 100_000


def test_every_surface_has_every_optimizer_at_every_factor(data):
    names = [o.__name__ for o in explorables.OPTIMIZERS]
    assert [s["name"] for s in data["surfaces"]] == ["ravine", "saddle", "rosenbrock"]
    for surface in data["surfaces"]:
        assert [p["optimizer"] for p in surface["paths"]] == np.repeat(names, 5).tolist()
        for i in range(len(names)):
            rates = [p["rate"] for p in surface["paths"][5 * i : 5 * i + 5]]
            np.testing.assert_allclose(np.array(rates) / rates[2], data["factors"], rtol=0.01)


def test_paths_begin_at_the_start_and_stay_inside(data):
    for surface in data["surfaces"]:
        low, high = np.array([surface["x"], surface["y"]]).T
        for path in surface["paths"]:
            points = np.array(path["points"])
            assert points[0].tolist() == surface["start"]
            assert len(points) <= explorables.POINTS + 1
            assert ((points >= low) & (points <= high)).all()


def test_at_its_best_rate_every_optimizer_gets_closer_to_a_minimum(data):
    for surface, frame in zip(data["surfaces"], explorables.FRAMES, strict=True):
        least = frame.surface.value(np.array(surface["minimum"]))
        for path in surface["paths"][2::5]:
            points = np.array(path["points"])
            values = frame.surface.value(points) - least
            assert len(points) == explorables.POINTS + 1, (surface["name"], path["optimizer"])
            assert values[-1] < 0.3 * values[0], (surface["name"], path["optimizer"])


def test_gradient_descent_follows_its_closed_form(data):
    ravine = data["surfaces"][0]
    for path in ravine["paths"][:5]:
        points, k = np.array(path["points"]), np.arange(len(path["points"]))[:, None]
        factors = 1 - path["rate"] * np.array([1.0, 50.0])
        due = np.array(ravine["start"]) * factors**k
        np.testing.assert_allclose(points, due, rtol=1e-3, atol=1e-6)  # the file keeps four digits


def test_values_belong_to_the_frame(data):
    for surface, frame in zip(data["surfaces"], explorables.FRAMES, strict=True):
        values = np.array(surface["values"])
        assert values.shape == (25, 41)
        corner = frame.surface.value(np.array([surface["x"][0], surface["y"][0]], dtype=float))
        assert values[0, 0] == pytest.approx(corner, rel=0.01)


def test_walk_is_the_optimizer_of_dlcore():
    """Heavy ball on a parabola, by hand."""
    (path,) = explorables.walk(dl.Momentum, lambda x: x, [1.0], [0.1], 3)
    x, v = 1.0, 0.0
    for measured in path[1:, 0]:
        v = 0.9 * v + x
        x -= 0.1 * v
        assert measured == pytest.approx(x, rel=1e-12)
