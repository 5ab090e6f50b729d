"""One loop for all that is waited for: serial lines and links."""

import selectors
import time


GLANCE = 0.1  # seconds after which one looks again, as a process may have ended


class TooLate(Exception):
    """What was waited for has not happened."""


class Loop:
    def __init__(self):
        self.selector = selectors.DefaultSelector()
        self.deadline = None  # of everything; a time.monotonic()

    def limit(self, seconds):
        self.deadline = time.monotonic() + seconds

    def add(self, source, readable):
        self.selector.register(source, selectors.EVENT_READ, readable)

    def remove(self, source):
        self.selector.unregister(source)

    def until(self, happened, seconds, what):
        """Serves all sources until `happened()` is true."""
        if not self.briefly_until(happened, seconds):
            raise TooLate(f"{what}: not in {seconds:.0f} s")

    def briefly_until(self, happened, seconds):
        """As `until`; says whether it happened."""
        end = min(time.monotonic() + seconds, self.deadline)
        while not happened():
            left = end - time.monotonic()
            if left <= 0:
                if end == self.deadline:
                    raise TooLate("the time limit of the whole set-up")
                return False
            for key, _ in self.selector.select(min(left, GLANCE)):
                key.data()
        return True

    def briefly(self, seconds):
        """Serves all sources for so long."""
        self.briefly_until(lambda: False, seconds)
