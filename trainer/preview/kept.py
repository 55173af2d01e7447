"""What was made lately, kept by what it was made from."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """Things of at most `most` in all, each of `size`; the one that was not asked for the longest goes first."""

    def __init__(self, most: int, size: Callable[[Key], int] = lambda key: 1) -> None:
        self._most = most
        self._size = size
        self._values: OrderedDict[Key, Value] = OrderedDict()

    def __contains__(self, key: Key) -> bool:
        return key in self._values

    def get(self, key: Key, make: Callable[[], Value], needed: Collection[Key] = ()) -> Value:
        """The thing of this key, which is made unless it is kept. It stays, and so do those that are `needed`."""
        if key not in self._values:
            self._values[key] = make()
        self._values.move_to_end(key)
        for other in [other for other in self._values if other != key and other not in needed]:
            if sum(map(self._size, self._values)) <= self._most:
                break
            del self._values[other]
        return self._values[key]
