"""What a chapter needs in a browser, called by its first cell: `start` says what is different there.

Pyodide has no threads, and a NumPy without BLAS. So chapters run at the size ``quick``, a pool of threads
works on the spot, and each verdict leads to the one that is stored, from all seeds.
"""

import concurrent.futures
import html
import logging
import os
import threading

LEDGER = "chapters/appendix/ledger.html"
NOTE = """\
This is Python in your browser: nothing is installed, no server computes, and what you change stays here.

- Training is what is slower: this NumPy has no BLAS, so matrix products take some twenty times as long as on
  your machine, and there is one thread. A whole chapter takes a minute or two, at most three.
- So the size is "{size}": the same code with few seeds and few steps. Its verdicts are a quick look and may
  differ from the book's, which come from all seeds and stand in the ledger: {ledger}
- Times that a chapter measures are those of this browser.
"""


class Serial(concurrent.futures.Executor):
    """Stands for ``ThreadPoolExecutor`` where no thread can start: each call is made at once."""

    def __init__(self, max_workers=None, thread_name_prefix="", initializer=None, initargs=()):
        if initializer is not None:
            initializer(*initargs)

    def submit(self, fn, /, *args, **kwargs):
        """Call, and return a future that is done."""
        future = concurrent.futures.Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # it is raised again where the result is asked for
            future.set_exception(error)
        return future


def start(size="quick"):
    """Get a chapter ready: its size, executors, links of its verdicts; say what is slower."""
    os.environ["DLCORE_SIZE"] = size
    if not _threads():
        concurrent.futures.ThreadPoolExecutor = Serial
    # The first figure makes a list of fonts, each time anew, and says so on stderr.
    logging.getLogger("matplotlib.font_manager").setLevel(logging.ERROR)
    where = f"{site()}{LEDGER}"
    shell = get_ipython()  # noqa: F821 (IPython's own)
    formatter = shell.display_formatter.formatters["text/html"]
    formatter.for_type_by_name("dlcore.statistics", "Verdict", lambda v: shown(v, where))
    print(NOTE.format(size=size, ledger=where))


def shown(verdict, ledger):
    """Return a verdict's line as HTML; at size quick with a link to its entry in the ledger."""
    text = html.escape(str(verdict))
    if verdict.size == "quick":
        entry = f"{ledger}#ledger-{verdict.id.lower()}"
        link = f'<a href="{entry}" target="_blank">{verdict.id} in the ledger, from all seeds</a>'
        text = f"{text}\n\nA quick look, from few seeds and steps: {link}"
    return f'<pre style="word-break: normal">{text}</pre>'


def site():
    """Return the address of the book's site, to which this JupyterLite belongs."""
    from js import location  # of the worker, a script of JupyterLite's

    return location.href.partition("lite/extensions/")[0]


def _threads():
    try:
        threading.Thread(target=int).start()
    except RuntimeError:
        return False
    return True
