"""Where the commands look for the face model that `dhm prepare` wrote. Loads no torch."""

from pathlib import Path

# The file's name, in the folder of the stores.
FACE_MODEL = "face_model.h5"
# Where `dhm prepare` writes it unless told otherwise.
DEFAULT_FACE_MODEL = Path("data") / FACE_MODEL


def face_model_beside(store: Path) -> Path:
    """Where `dhm prepare` put the face model of a store: beside it. The file may have been moved since."""
    return store.parent / FACE_MODEL


def existing_face_model(store: Path | None = None) -> Path | None:
    """The face model beside a store, else the one in the folder `data`; None where there is neither."""
    places = [DEFAULT_FACE_MODEL] if store is None else [face_model_beside(store), DEFAULT_FACE_MODEL]
    return next((place for place in places if place.exists()), None)
