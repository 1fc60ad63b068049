"""What a checkpoint sees: all that code reaches, whatever the folder; and nothing that decides nothing."""

import abc
import collections
import contextlib
import enum
import functools
import importlib
import logging
import operator
import os
import random
import re
import subprocess
import sys
import textwrap
import threading
import types
from pathlib import Path

import numpy as np
import pytest
import small

import dlcore as dl
from dlcore import checkpoints, fingerprints, installed
from dlcore.fingerprints import fingerprint

HERE = Path(__file__).parent


class Project:
    """A folder of modules that are written, imported, edited, and imported anew."""

    def __init__(self, folder, monkeypatch):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        monkeypatch.syspath_prepend(str(folder))
        monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def write(self, **texts):
        for name, text in texts.items():
            file = self.folder / (name.replace("__", "/") + ".py")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(text))

    def read(self, name="main"):
        for found in [*sys.modules]:
            file = getattr(sys.modules[found], "__file__", None) or ""
            folders = [*map(str, getattr(sys.modules[found], "__path__", ()))]
            mine = any(f.startswith(str(self.folder)) for f in (file, *folders))
            if mine or found in ("main", "nets", "deep"):
                del sys.modules[found]
        importlib.invalidate_caches()
        return importlib.import_module(name)

    def print(self, name="main"):
        return fingerprint(self.read(name).it)


@pytest.fixture
def project(tmp_path, monkeypatch):
    made = Project(tmp_path / "project", monkeypatch)
    yield made
    monkeypatch.undo()
    for name in ("main", "nets", "deep", "pack", "pack.inner"):
        sys.modules.pop(name, None)


NETS = """
    import deep
    WIDTH = 5
    TABLE = {"a": [1, 2], "b": {3, 4}}
    class Base:
        size = 3
        def make(self): return deep.twice(self.size)
    class Net(Base):
        def __init__(self, n=2): self.n = n
        @property
        def double(self): return 2 * self.n
        @staticmethod
        def still(): return "x"
    def blueprint(): return [WIDTH, TABLE["a"]]
    def options(*, rate=0.5): return rate
    def decorate(f):
        import functools
        @functools.wraps(f)
        def inner(*args): return f(*args) + 1
        return inner
    @decorate
    def decorated(x=1): return 10 * x
    @decorate
    def outer(): return [k for k in range(7)]
    SQUARE = lambda x: x * x
"""
DEEP = """
    FACTOR = 2
    def twice(x): return FACTOR * x
"""
#: How the code in ``main`` reaches into ``nets``.
WAYS = {
    "module.function": ("import nets\ndef it(): return nets.blueprint()", "blueprint"),
    "alias": ("import nets as n\ndef it(): return n.blueprint()", "blueprint"),
    "from": ("from nets import blueprint\ndef it(): return blueprint()", "blueprint"),
    "the function": ("from nets import blueprint as it", "blueprint"),
    "inside": ("def it():\n    import nets\n    return nets.blueprint()", "blueprint"),
    "from inside": ("def it():\n    from nets import blueprint\n    return blueprint()", "blueprint"),
    "lambda": ("import nets\nit = lambda: nets.blueprint()", "blueprint"),
    "nested": ("import nets\ndef it():\n    def f(): return nets.blueprint()\n    return f()", "blueprint"),
    "comprehension": ("import nets\ndef it(): return [nets.blueprint() for _ in 'ab']", "blueprint"),
    "partial": ("import functools, nets\nit = functools.partial(nets.options)", "options"),
    "closure": ("import nets\ndef make(f):\n    return lambda: f()\nit = make(nets.blueprint)", "blueprint"),
    "default": ("import nets\ndef it(f=nets.blueprint): return f()", "blueprint"),
    "keyword": ("import nets\ndef it(*, f=nets.blueprint): return f()", "blueprint"),
    "decorated": ("import nets\ndef it(): return nets.decorated()", "decorated"),
    "cached": ("import functools, nets\n@functools.cache\ndef it(): return nets.blueprint()", "blueprint"),
    "singledispatch": (
        "import functools, nets\n@functools.singledispatch\ndef it(x): return nets.blueprint()", "blueprint"
    ),
    "instance": ("import nets\nit = nets.Net()", "class"),
    "subclass": ("import nets\nclass it(nets.Net):\n    pass", "class"),
    "method": ("import nets\nit = nets.Net().make", "class"),
    "in a class": ("import nets\nclass it:\n    def f(self): return nets.Net()", "class"),
    "dataclass": (
        "from dataclasses import dataclass\nimport nets\n@dataclass\nclass C:\n"
        "    f: object = nets.blueprint\nit = C()",
        "blueprint",
    ),
    "factory": (
        "import dataclasses, nets\n@dataclasses.dataclass\nclass C:\n"
        "    f: object = dataclasses.field(default_factory=nets.blueprint)\nit = C",
        "blueprint",
    ),
    "handed on": ("import nets\ndef f(m): return m.blueprint()\ndef it(): return f(nets)", "blueprint"),
    "by getattr": ("import nets\ndef it(): return getattr(nets, 'blue' + 'print')()", "blueprint"),
    "in a list": ("import nets\nALL = [{'x': nets.blueprint}]\ndef it(): return ALL[0]['x']()", "blueprint"),
    "dlcore's": ("import dlcore as dl, nets\nit = dl.augmentation.compose(nets.blueprint)", "blueprint"),
}  # fmt: skip
#: What is edited, and to what.
EDITS = {
    "blueprint": [("WIDTH = 5", "WIDTH = 50"), ("[1, 2]", "[1, 3]"), ("[WIDTH,", "[-WIDTH,")],
    "options": [("rate=0.5", "rate=0.25"), ("return rate", "return 1 - rate")],
    "decorated": [("x=1", "x=2"), ("10 * x", "11 * x"), ("+ 1", "+ 2")],
    "class": [
        ("size = 3", "size = 4"), ("n=2", "n=3"), ("return 2 * self.n", "return 3 * self.n"),
        ('return "x"', 'return "y"'), ("deep.twice(self.size)", "deep.twice(-self.size)"),
    ],
}  # fmt: skip


@pytest.mark.parametrize("way", WAYS)
def test_helpers_count_however_they_are_reached(way, project):
    main, what = WAYS[way]
    nets = NETS.replace("SQUARE", "# a comment\n    SQUARE")
    project.write(main=main, nets=NETS, deep=DEEP)
    first = project.print()
    assert project.print() == first
    for old, new in EDITS[what]:
        assert old in NETS
        project.write(nets=NETS.replace(old, new))
        assert project.print() != first, (old, new)
    project.write(nets=nets)
    assert project.print() == first


@pytest.mark.parametrize("way", ["instance", "subclass", "method", "in a class"])
def test_helpers_of_helpers_count(way, project):
    project.write(main=WAYS[way][0], nets=NETS, deep=DEEP)
    first = project.print()
    project.write(deep=DEEP.replace("FACTOR = 2", "FACTOR = 3"))
    assert project.print() != first


def test_what_is_not_reached_does_not_count(project):
    project.write(main=WAYS["module.function"][0], nets=NETS, deep=DEEP)
    first = project.print()
    project.write(nets=NETS.replace("x * x", "x + x").replace("size = 3", "size = 4"))
    assert project.print() == first


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("def f(x):", "# said\n\n\ndef f(x):"),
        ("return x", "return x  # said"),
        ('"""Old."""', '"""New."""'),
        ("def f(x): ", "def f(x):\n    "),
        ("import os\n", "import os\nUNUSED = 3\n"),
        ("(x):", "(x: int) -> int:"),
    ],
)
def test_comments_docstrings_and_places_do_not_count(old, new, project):
    text = 'import os\ndef f(x): """Old."""; return x\ndef it(): return f(1)\n'
    project.write(main=text)
    first = project.print()
    assert old in text
    project.write(main=text.replace(old, new))
    assert project.print() == first


@pytest.mark.parametrize(
    "folder", ["my-packages", "site-packages", "a/dist-packages/b", "lib/python3.11", "dlcore"]
)
def test_the_name_of_the_folder_does_not_matter(folder, tmp_path, monkeypatch):
    project = Project(tmp_path / folder, monkeypatch)
    project.write(main=WAYS["module.function"][0], nets=NETS, deep=DEEP)
    first = project.print()
    project.write(nets=NETS.replace("WIDTH = 5", "WIDTH = 50"))
    assert project.print() != first


@pytest.mark.parametrize(
    "name", ["this", "antigravity", "nturl2path", "sre_compile", "dlcore_extra"]
)
def test_modules_with_the_name_of_others_are_the_users(name, project):
    sys.modules.pop(name, None)
    project.write(**{name: "N = 1\ndef it(): return N\n"})
    first = project.print(name)
    project.write(**{name: "N = 2\ndef it(): return N\n"})
    assert project.print(name) != first


def test_packages_and_relative_imports(project):
    project.write(
        pack____init__="", pack__inner="N = 1\ndef f(): return N\n", main="from pack.outer import it\n",
        pack__outer="from . import inner\ndef it():\n    from .inner import f\n    return f(), inner.N\n",
    )  # fmt: skip
    first = project.print()
    project.write(pack__inner="N = 2\ndef f(): return N\n")
    assert project.print() != first


def install(folder, version, text, direct=False, record="pkg.py,sha256=a,1\n"):
    """What an installer leaves: a module, and a folder that says so."""
    about = folder / "fakepackage-1.dist-info"
    about.mkdir(parents=True, exist_ok=True)
    (folder / "fakepackage.py").write_text(text)
    (about / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: fakepackage\nVersion: {version}\n"
    )
    (about / "RECORD").write_text("fakepackage.py,,\n" + record)
    (about / "top_level.txt").write_text("fakepackage\n")
    if direct:
        (about / "direct_url.json").write_text("{}")


@pytest.fixture
def fake(tmp_path, monkeypatch):
    project = Project(tmp_path / "libraries", monkeypatch)

    def make(*args, **kwargs):
        install(project.folder, *args, **kwargs)
        for cache in (installed._version, installed._distributions):
            cache.cache_clear()
        project.write(main="import fakepackage\ndef it(): return fakepackage.f()\n")
        (project.folder / "main.py").rename(tmp_path / "main.py")
        monkeypatch.syspath_prepend(str(tmp_path))
        sys.modules.pop("main", None)
        return fingerprint(project.read("main").it)

    yield make
    monkeypatch.undo()
    for cache in (installed._version, installed._distributions):
        cache.cache_clear()
    for name in ("fakepackage", "main"):
        sys.modules.pop(name, None)


CODE = "def f(): return 1\n"


def test_installed_packages_count_by_name_and_version(fake):
    first = fake("1.0", CODE)
    assert fake("1.0", CODE.replace("1", "2")) == first  # an index never changes a version
    assert fake("1.1", CODE) != first


def test_packages_that_were_installed_from_a_folder_count_by_their_files_too(fake):
    first = fake("1.0", CODE, direct=True)
    assert fake("1.0", CODE, direct=True) == first
    assert fake("1.0", CODE, direct=True, record="pkg.py,sha256=b,1\n") != first


def test_versions_of_what_is_there():
    assert installed.version("numpy.linalg") == f"numpy {np.__version__}"
    assert installed.version("json.decoder").startswith("Python 3.")
    assert installed.version("builtins").startswith("Python 3.")
    assert installed.version("dlcore.layers") == "dlcore"
    assert installed.version("__main__") is None
    assert installed.version("small") is None
    assert installed.version("no_such_module") is None


# Files and the environment -----------------------------------------------------------------------

READING = [
    "def it():\n    with open('data.txt') as f: return f.read()",
    "def it(): return open(NAME).read()",
    "from pathlib import Path\ndef it(): return Path('data.txt').read_text()",
    "from pathlib import Path\nFILE = Path('data.txt')\ndef it(): return FILE.read_bytes()",
    "import numpy as np\ndef it(): return np.loadtxt('data.txt')",
    "import numpy as np\ndef it(path='data.txt'): return np.load(path)",
    "def f(path): return open(path).read()\ndef it(): return f('data.txt')",
    "from pathlib import Path\ndef it(): return (Path(__file__).parent / 'data.txt').read_text()",
]


@pytest.mark.parametrize("text", READING)
def test_files_that_are_named_and_read_count(text, project, monkeypatch):
    monkeypatch.chdir(project.folder)
    (project.folder / "data.txt").write_text("1 2 3")
    project.write(main="NAME = 'data.txt'\n" + text)
    first = project.print()
    assert project.print() == first
    (project.folder / "data.txt").write_text("1 2 4")
    assert project.print() != first


@pytest.mark.parametrize(
    "text",
    ["def it(n): return open(f'data{n}.txt').read()",
     "import numpy as np\ndef it(n): return np.loadtxt(str(n))",
     "def it(path): return path.read_bytes()"],
)  # fmt: skip
def test_files_without_a_name_are_refused(text, project):
    project.write(main=text)
    with pytest.raises(
        TypeError, match=r"it: expected the name of the file .* leave out checkpoint="
    ):
        project.print()


def test_files_that_are_written_do_not_count(project, monkeypatch):
    monkeypatch.chdir(project.folder)
    project.write(main="def it(text):\n    with open('log.txt', 'a') as f: f.write(text)")
    first = project.print()
    (project.folder / "log.txt").write_text("said")
    assert project.print() == first


def test_variables_of_the_environment_count(project, monkeypatch):
    monkeypatch.setenv("NETS_WIDTH", "5")
    project.write(main="import os\ndef it(): return int(os.environ['NETS_WIDTH'])")
    first = project.print()
    monkeypatch.setenv("NETS_WIDTH", "50")
    assert project.print() != first


# Refusals ----------------------------------------------------------------------------------------

HANDLE = None


def uses_a_file():
    return HANDLE


def dynamic():
    return eval("1 + 1")


def imports():
    return importlib.import_module("js" + "on")


class Busy:
    def __reduce__(self):
        raise RuntimeError("not now")


REFUSED = {
    "generator": lambda: (i for i in range(3)),
    "open file": lambda: open(os.devnull, "rb"),  # noqa: SIM115
    "by a global": lambda: uses_a_file,
    "eval": lambda: dynamic,
    "import_module": lambda: imports,
    "own refusal": lambda: Busy(),
    "hidden function": lambda: np.frompyfunc(lambda x: x, 1, 1),
    "module": lambda: types.ModuleType("nowhere"),
    "frame": sys._getframe,
    "in a list": lambda: [1, {"a": (i for i in range(3))}],
}


@pytest.mark.parametrize("kind", sorted(set(REFUSED) - {"module"}))
def test_what_cannot_be_told_apart_is_refused(kind, monkeypatch):
    with open(os.devnull) as handle:
        monkeypatch.setitem(globals(), "HANDLE", handle)
        value = REFUSED[kind]()
        with pytest.raises(TypeError, match=r"expected .*, got .*leave out checkpoint="):
            fingerprint({"schedule": value})
        if hasattr(value, "close"):
            value.close()


def test_a_refusal_says_where(tmp_path):
    def schedule(step, steps):
        return dynamic()

    network = dl.Network(dl.mlp([6, 3]), 0, "numpy")
    before = network.parameters.tobytes()
    with pytest.raises(TypeError, match=r"dynamic: expected what can be fing.* calls eval\(\)"):
        dl.fit(
            network, small.blobs(), lr=0.1, epochs=1, schedule=schedule, checkpoint=tmp_path / "a"
        )
    assert network.parameters.tobytes() == before


# Other kinds of values ---------------------------------------------------------------------------


def different(*values):
    found = [fingerprint(value) for value in values]
    assert len(set(found)) == len(found)
    assert found == [fingerprint(value) for value in values]


def test_orders_within_code_count():
    def reads(table):
        return lambda: list(table)

    different(reads({"a": 1, "b": 2}), reads({"b": 2, "a": 1}))
    assert fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})


def test_values_that_look_alike():
    class Number(int):
        def __repr__(self):
            return "1"

    masked = np.ma.array([1, 2], mask=[True, False])
    different(1, True, Number(1), Number(2), "1", np.int64(1), np.int32(1), np.array(1), [1])
    different(np.ma.array([1, 2]), masked, np.array([1, 2]))
    different(np.arange(3, dtype="<i4"), np.arange(3, dtype=">i4"), np.arange(3.0))
    different([[1], [2]], [[1, 2]], [[], [1, 2]], ([1], [2]), [1, [2]])
    different(functools.partial(max, 1), functools.partial(max, key=1), functools.partial(min, 1))
    different({1: 2}, {2: 1}, {"1": 2}, {(1, 2)}, {1, 2})
    different(10**5000, 10**5000 + 1)


def test_roles_of_functions_count():
    def a():
        return 1

    def b():
        return 2

    different({"x": a, "y": b}, {"x": b, "y": a}, {"x": a, "y": a})
    different([scaled, other], [other, scaled])


def scaled(x):
    return 2 * x


def other(x):
    return 3 * x


def test_a_class_is_the_same_after_its_instances_were_pickled():
    class Slotted:
        __slots__ = ("x",)

    before = fingerprint(Slotted)
    one = Slotted()
    one.x = 1
    fingerprint(one)
    assert fingerprint(Slotted) == before


def test_attributes_of_functions_count():
    def a():
        return 1

    before = fingerprint(a)
    a.width = 3
    assert fingerprint(a) != before


def test_exceptions_that_are_caught_count():
    def space(error):
        text = f"def it():\n    try: return f()\n    except {error}: return 0"
        made = {"__name__": "__main__", "f": len}
        exec(text, made)
        return made["it"]

    different(space("ValueError"), space("TypeError"), space("Exception"))


def test_locks_loggers_and_unseeded_generators_are_no_settings():
    """Their state decides nothing, or is another one in each process."""
    for make in (threading.Lock, threading.RLock, lambda: logging.Logger("x")):
        assert fingerprint({"one": make(), "a": 1}) == fingerprint({"one": make(), "a": 1})
    before = fingerprint([random.random, np.random.mtrand.rand])
    random.random()
    np.random.mtrand.rand()
    assert fingerprint([random.random, np.random.mtrand.rand]) == before
    assert fingerprint(random.Random(1)) != fingerprint(random.Random(2))


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


class Abstract(abc.ABC):
    @abc.abstractmethod
    def f(self): ...


class Lazy:
    @functools.cached_property
    def value(self):
        return 1

    @functools.singledispatchmethod
    def by_type(self, x):
        return x


Pair = collections.namedtuple("Pair", "a b")


@contextlib.contextmanager
def managed():
    yield 1


def matched(x):
    match x:
        case {"a": [1, *rest]}:
            return rest
        case Pair(a=1):
            return re.compile("a")


@pytest.mark.parametrize(
    "value",
    [Colour, Colour.RED, Abstract, Lazy, Lazy(), Pair, Pair(1, 2), managed, matched, re.compile("a+"),
     np.vectorize(matched), np.mean, np.linalg.norm, np.dtype("f4"), operator.itemgetter(1),
     collections.OrderedDict(a=1), collections.defaultdict(list, a=[1]), collections.deque([1], 3),
     int | None, dl.initializers.get("he_normal"), dl.Network(dl.mlp([3, 2]), 0, "numpy")],
    ids=lambda value: getattr(value, "__name__", type(value).__name__),
)  # fmt: skip
def test_values_of_many_kinds_have_fingerprints(value):
    assert fingerprint(value) == fingerprint([value][0])
    assert fingerprint([value]) != fingerprint([value, value])


def test_many_functions_that_call_each_other():
    """As many paths as 12! lead through them."""
    names = [f"f{i}" for i in range(12)]
    body = "\n".join(f"def {n}(k): return [{', '.join(names)}][k](k - 1)" for n in names)
    space = {"__name__": "__main__"}
    exec(body, space)
    assert fingerprint(space["f0"]) == fingerprint(space["f0"]) != fingerprint(space["f1"])


def test_objects_that_know_each_other():
    class Node:
        pass

    nodes = [Node() for _ in range(12)]
    for node in nodes:
        node.others = nodes
    assert fingerprint(nodes) == fingerprint(nodes)


def test_the_order_of_settings_does_not_matter_for_what_is_shared():
    """One memory for many shards: a value seen first elsewhere has the same fingerprint."""
    data, cyclic = small.blobs(), []
    cyclic.append([cyclic, 1])
    known = fingerprints.Fingerprints()
    for value in ([data, cyclic], cyclic[0], data, [cyclic[0], scaled], [scaled, other]):
        assert fingerprint(value, known) == fingerprint(value)


@pytest.mark.thorough
def test_the_same_in_another_process(project):
    """Sets, hashes and addresses differ there; and a pool's processes call the script otherwise."""
    script = WAYS["instance"][0] + (
        "\nimport sys; sys.path.insert(0, sys.argv[1]); import random"
        "\nfrom dlcore.fingerprints import fingerprint"
        "\nS = {'alpha', 'beta', 'gamma', 3, (1, 'x')}"
        "\ndef f(x): return x in {'one', 'two', 'three'} and S and nets.Net(3).make()"
        "\nclass K:\n    __slots__ = ('a', 'b', 'c')\n    def g(self): return f(self)"
        "\nprint(fingerprint([f, K, K(), it, lambda: S, random.Random(3)]))"
    )
    project.write(nets=NETS, deep=DEEP, script=script)
    found = set()
    for seed in ("1", "2", "3"):
        path = os.pathsep.join([str(HERE.parent), str(project.folder)])
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed}
        command = [sys.executable, str(project.folder / "script.py"), str(HERE)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        found.add(done.stdout)
    assert len(found) == 1


def test_the_main_script_in_a_process_of_a_pool():
    made = []
    for name in ("__main__", "__mp_main__"):
        space = {"__name__": name}
        exec("def f(): return 1\nclass K:\n    x = f\ndef it(): return f(), K", space)
        made.append(fingerprint([space["it"], space["K"]()]))
    assert made[0] == made[1]


# Sweeps and versions -----------------------------------------------------------------------------


def test_a_sweep_trains_anew_after_a_helper_was_edited(project, tmp_path):
    nets = "import dlcore as dl\nWIDTH = 5\ndef blueprint(): return dl.mlp([6, WIDTH, 3])()\n"
    project.write(main="import nets\ndef it(): return nets.blueprint()\n", nets=nets)

    def losses():
        blueprint = project.read().it
        options = dict(lr=0.1, epochs=1, seeds=2, backend="numpy")
        found = dl.sweep(blueprint, small.blobs(), checkpoint=tmp_path / "kept", **options)
        return found.valid_loss.values, dl.sweep(
            blueprint, small.blobs(), **options
        ).valid_loss.values

    old, anew = losses()
    np.testing.assert_array_equal(old, anew)
    project.write(nets=nets.replace("WIDTH = 5", "WIDTH = 50"))
    edited, anew = losses()
    np.testing.assert_array_equal(edited, anew)
    assert not np.array_equal(old, edited)


def test_dlcores_code_counts_in_all_its_folders(tmp_path, monkeypatch):
    (tmp_path / "dlcore" / "nn").mkdir(parents=True)
    for name in ("fingerprints.py", "nn/layers.py"):
        (tmp_path / "dlcore" / name).write_text("x = 1\n")
    monkeypatch.setattr(fingerprints, "__file__", str(tmp_path / "dlcore" / "fingerprints.py"))
    plain = fingerprints._code.__wrapped__
    first = plain()
    (tmp_path / "dlcore" / "nn" / "layers.py").write_text("x = 2\n")
    second = plain()
    (tmp_path / "dlcore" / "nn" / "layers.py").rename(tmp_path / "dlcore" / "nn" / "moved.py")
    assert len({first, second, plain()}) == 3
    monkeypatch.setattr(np, "__version__", "2.99")
    assert plain() not in (first, second)
    monkeypatch.setattr(fingerprints, "__file__", str(tmp_path / "nothing" / "fingerprints.py"))
    with pytest.raises(RuntimeError, match="expected dlcore's source files"):
        plain()


def test_the_code_is_in_every_checkpoint():
    assert checkpoints.code() == fingerprints.code()
