"""Messages of Gradio's queue to pages that do not listen: only so many are kept.

    blocks._queue.pending_messages_per_session = Unread()

A page asks for work with one request and hears of it with another. Gradio keeps what is said until then: of 2000 pages,
and any number of results for each, every one with two pictures.
"""

from __future__ import annotations

from asyncio import Queue
from collections import OrderedDict

MOST_MESSAGES = 250  # in all; work that is done has about five, one with the pictures
MOST_PAGES = 2000


class Unread(OrderedDict):
    """Messages by page. Those of the page that has left most of them unread go first, of several the oldest."""

    def __getitem__(self, page: str) -> Queue:
        """The messages of a page, before one is added or taken."""
        if sum(messages.qsize() for messages in self.values()) > MOST_MESSAGES:
            longest = max(self.values(), key=Queue.qsize)
            while not longest.empty():
                longest.get_nowait()
        return super().__getitem__(page)

    def __setitem__(self, page: str, messages: Queue) -> None:
        if page not in self and len(self) >= MOST_PAGES:
            self.popitem(last=False)
        super().__setitem__(page, messages)
