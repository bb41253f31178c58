"""Saving a reader's session as it reads, so that a stop loses a few seconds of it at most."""

import time

from miras.analysis.stream.place import Place, place_of
from miras.data.tokenizers.text_decoder import within_text
from miras.models import LanguageModel, Session, save_session
from miras.models.session import load_notes, resumed
from miras.runtime import signals

PAUSE = 5.0
"""Seconds from one save to the next, at least; more where saving is slow."""

_SHARE = 20  # times as long as a save took, so that saving is a twentieth of the time


class Saving:
    """The session of a reader, in a file if it has one.

    Args:
        path: of the session; without one, nothing is read or written.
        model: the run's.

    Attributes:
        session: where to go on from; None for a new text.
        place: where in the text, if it was read in part.

    Raises:
        ConfigError: for a file that is no session of this model.
    """

    def __init__(self, path: str | None, model: LanguageModel):
        self._path, self._model = path, model
        self.session: Session | None = resumed(path, model)
        self.place: Place | None = None
        if path is not None and self.session is not None:
            notes = load_notes(path).get("reading")
            self.place = None if notes is None else place_of(notes)
        self._saved, self._took = time.monotonic(), 0.0

    def after_piece(self, session: Session, place: Place) -> str:
        """Save if it is time, or if a signal asks to stop; says so, as the end of a sentence."""
        if self._path is None:
            return ""
        start = time.monotonic()
        stop = signals.requested() is not None
        if not stop and start - self._saved < max(PAUSE, _SHARE * self._took):
            return ""
        save_session(self._path, self._model, session, {"reading": place.notes()})
        self._saved = time.monotonic()
        self._took = self._saved - start
        return f"; the same command goes on from {self._path}"

    def at_end(self, session: Session, last: int | None) -> None:
        """Save the session of a text that was read to its end, which is the id `last`."""
        if self._path is not None:
            save_session(self._path, self._model, session, {"text": within_text(last)})
