"""Stands for the standard library's module, which IPython imports for its history; here there is none."""


class Connection:
    """There is none."""


class Error(Exception):
    """As in the standard library."""


class DatabaseError(Error):
    """As in the standard library."""


class OperationalError(DatabaseError):
    """As in the standard library."""


def connect(*args, **kwargs):
    """Refuse: nothing of the book needs a database."""
    raise OperationalError("this Python, in a browser, has no database")
