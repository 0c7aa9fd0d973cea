"""Where the face model of `dhm prepare` is looked for."""

from pathlib import Path

import pytest

from dhm_cli.morphable.location import DEFAULT_FACE_MODEL, existing_face_model, face_model_beside


def test_beside_the_store_first_then_in_the_folder_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = tmp_path / "mine" / "faces.h5"
    assert existing_face_model(store) is None
    assert existing_face_model() is None
    DEFAULT_FACE_MODEL.parent.mkdir()
    DEFAULT_FACE_MODEL.touch()
    assert existing_face_model(store) == existing_face_model() == DEFAULT_FACE_MODEL
    store.parent.mkdir()
    face_model_beside(store).touch()
    assert existing_face_model(store) == tmp_path / "mine" / "face_model.h5"
    assert existing_face_model() == DEFAULT_FACE_MODEL
