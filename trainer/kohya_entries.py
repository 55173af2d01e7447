"""What becomes of the entries of another trainer's config: taken, changed, or without a counterpart. Knows none by name."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from trainer.errors import SettingsError
from trainer.kohya_file import Config
from trainer.settings_text import validated


@dataclass(frozen=True)
class Entry:
    """One entry of a config and what became of it: `ours` is a setting, or empty; not `given` is a default of theirs."""

    theirs: str
    value: Any
    ours: str = ""
    becomes: Any = None
    why: str = ""
    given: bool = True


@dataclass
class Import:
    """A config and what has become of it so far."""

    config: Config
    absent: frozenset[str] = frozenset()
    settings: dict[str, Any] = field(default_factory=dict)
    taken: list[Entry] = field(default_factory=list)
    changed: list[Entry] = field(default_factory=list)
    without: list[Entry] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The settings and the three lists."""
        lists = {name: [asdict(entry) for entry in getattr(self, name)] for name in ("taken", "changed", "without")}
        return {"settings": self.settings, **lists}

    @property
    def named(self) -> set[str]:
        """Their names of which something has been said."""
        return {entry.theirs for entries in (self.taken, self.changed, self.without) for entry in entries}

    def put(self, theirs: str, ours: str, becomes: Any, why: str = "") -> None:
        """Make `ours` of an entry: taken, or changed if there is a reason; without, if the setting cannot be so."""
        try:
            kept = validated({ours: becomes}).model_dump(mode="json")[ours]
        except SettingsError as error:
            self.leave(theirs, str(error).rstrip("."))
            return
        self.settings[ours] = kept
        self._tell(self.changed if why else self.taken, theirs, ours, kept, why)

    def same(self, theirs: str, why: str = "") -> None:
        """Tell that there is no setting for an entry since it is so in any case, or nearly so for a reason."""
        self._tell(self.changed if why else self.taken, theirs, "", None, why)

    def leave(self, theirs: str, why: str = "") -> None:
        """Tell that an entry, if it is there, has no counterpart."""
        if theirs in self.config:
            self._tell(self.without, theirs, "", None, why)

    def _tell(self, entries: list[Entry], theirs: str, ours: str, becomes: Any, why: str) -> None:
        entries.append(Entry(theirs, self.config[theirs], ours, becomes, why, theirs not in self.absent))
