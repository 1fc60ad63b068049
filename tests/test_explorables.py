"""The data of the explorables: small, complete, what dlcore computes, and what the equations say."""

import json

import numpy as np
import pytest

import dlcore as dl
from book import explorables


@pytest.fixture(scope="module")
def data():
    return explorables.read("optimizer-paths")


@pytest.mark.parametrize("name", explorables.EXPLORABLES)
def test_files_are_small_and_in_normal_form(name):
    text = (explorables.FOLDER / f"{name}.json").read_text("utf-8")
    assert 1_000 < len(text.encode()) <= 100_000
    assert explorables.as_json(json.loads(text)) == text


def same(stored, fresh, digits):
    """Numbers agree but for rounding, everything else to the letter."""
    if isinstance(stored, dict):
        assert stored.keys() == fresh.keys()
        for key in stored:
            same(stored[key], fresh[key], digits)
    elif isinstance(stored, list) and stored and not isinstance(stored[0], dict | list | str):
        np.testing.assert_allclose(fresh, stored, atol=digits, rtol=digits)
    elif isinstance(stored, list):
        assert len(stored) == len(fresh)
        for old, new in zip(stored, fresh, strict=True):
            same(old, new, digits)
    elif isinstance(stored, float):
        assert fresh == pytest.approx(stored, abs=digits, rel=digits)
    else:
        assert stored == fresh


@pytest.mark.parametrize("name", ["optimizer-paths", "momentum"])
def test_paths_are_what_dlcore_computes(name):
    same(explorables.read(name), json.loads(json.dumps(explorables.EXPLORABLES[name]())), 2e-3)


@pytest.mark.parametrize(("unit", "depth", "scale"), [("tanh", 10, 2.0), ("ReLU", 5, 0.5)])
def test_gradient_flow_is_what_dlcore_computes(unit, depth, scale):
    stored = explorables.read("gradient-flow")
    assert len(stored["nets"]) == 3 * 4 * 11
    (net,) = (
        n for n in stored["nets"] if (n["unit"], n["depth"], n["scale"]) == (unit, depth, scale)
    )
    fresh = {"unit": unit, "depth": depth, "scale": scale} | explorables.flow(unit, depth, scale)
    same(net, fresh, 0.011)


@pytest.mark.slow
def test_learning_rates_are_what_dlcore_computes():
    """Training is chaotic: another processor gives single nets other accuracies, and about the same mean."""
    stored = explorables.read("learning-rates")
    assert np.shape(stored["accuracy"]) == (5, 17, 10)
    method = stored["methods"].index("ReLU, He")
    fresh = explorables.accuracies("ReLU, He", explorables.METHOD_RATES[4:9:2], range(3))
    due = np.array(stored["accuracy"][method])[4:9:2, :3]
    np.testing.assert_allclose(np.mean(fresh, axis=1), due.mean(axis=1), atol=3)


@pytest.mark.slow
def test_dropout_is_what_dlcore_computes():
    stored = explorables.read("dropout")
    assert np.shape(stored["train"]) == np.shape(stored["valid"]) == (3, 8, 8)
    train, valid = explorables.dropped(250, [0.0, 0.5], range(2))
    for part, fresh in (("train", train), ("valid", valid)):
        due = np.array(stored[part][0])[[0, 5], :2]
        np.testing.assert_allclose(np.mean(fresh, axis=1), due.mean(axis=1), atol=3)


def test_more_dropout_narrows_the_gap():
    stored = explorables.read("dropout")
    gap = np.mean(stored["train"], axis=-1) - np.mean(stored["valid"], axis=-1)
    assert (gap[:, -1] < gap[:, 0]).all()


def test_every_position_of_momentums_controls_has_a_path():
    stored = explorables.read("momentum")
    for surface in stored["surfaces"]:
        assert len(surface["paths"]) == len(stored["momenta"]) * len(stored["factors"])
        rates = [p["rate"] for p in surface["paths"][:5]]
        np.testing.assert_allclose(np.array(rates) / surface["best"], stored["factors"], rtol=0.01)
    ravine, rate = stored["surfaces"][0], stored["surfaces"][0]["paths"][0]["rate"]
    points = np.array(ravine["paths"][0]["points"])  # momentum 0: gradient descent, in closed form
    due = (
        np.array(ravine["start"])
        * (1 - rate * np.array([1.0, 50.0])) ** np.arange(len(points))[:, None]
    )
    np.testing.assert_allclose(points, due, rtol=1e-3, atol=1e-6)


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
