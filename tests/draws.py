"""A stand-in for a random generator, so that a test can say what is drawn."""

from __future__ import annotations


class Draws:
    """Stands in for a generator: hands out the given values one after the other."""

    def __init__(self, *values):
        self.values = list(values)

    def _next(self, *args, **kwargs):
        return self.values.pop(0)

    uniform = integers = random = _next
