"""Saves a session while a text is read, so that an interrupt loses a few seconds at most."""

import time

from miras.analysis.stream.token_stream import TextPosition, parse_position
from miras.data.tokenizers.text_decoder import mid_text_state
from miras.models import LanguageModel, Session, save_session
from miras.models.session import load_notes, resumed
from miras.runtime import signals

PAUSE = 5.0
"""Minimum seconds between two saves; longer if a save is slow."""

_SHARE = 20  # saving takes at most a twentieth of the time


class SessionSaver:
    """Loads a session from a file, and saves it while a text is read.

    Args:
        path: of the session; without one, nothing is read or written.
        model: the run's.

    Attributes:
        session: to continue; None for a new text.
        position: in the text, if part of it has been read.

    Raises:
        ConfigError: for a file that is not a session of this model.
    """

    def __init__(self, path: str | None, model: LanguageModel):
        self._path, self._model = path, model
        self.session: Session | None = resumed(path, model)
        self.position: TextPosition | None = None
        if path is not None and self.session is not None:
            notes = load_notes(path).get("reading")
            self.position = None if notes is None else parse_position(notes)
        self._saved, self._took = time.monotonic(), 0.0

    def after_piece(self, session: Session, position: TextPosition) -> str:
        """Save if it is time, or if a signal asks to stop; returns how to resume, or ""."""
        if self._path is None:
            return ""
        start = time.monotonic()
        stop = signals.requested() is not None
        if not stop and start - self._saved < max(PAUSE, _SHARE * self._took):
            return ""
        save_session(self._path, self._model, session, {"reading": position.notes()})
        self._saved = time.monotonic()
        self._took = self._saved - start
        return f"; the same command resumes from {self._path}"

    def at_end(self, session: Session, last: int | None) -> None:
        """Save the session after the whole text, whose last id is `last`."""
        if self._path is not None:
            save_session(self._path, self._model, session, {"text": mid_text_state(last)})
