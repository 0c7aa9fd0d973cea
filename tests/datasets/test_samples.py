"""Images of a dataset go into a store as they are."""

from pathlib import Path

import dataset_examples as examples
from dataset_examples import SIZE, load_image

from dhm_cli.datasets.samples import Sample, load_images
from dhm_cli.errors import InputError


def test_images_are_stored_as_they_are(tmp_path: Path) -> None:
    """Labels belong to the stored pixels, so a photo that a viewer would turn is not turned."""
    path = examples.write_image(tmp_path / "a.jpg")
    plain = path.read_bytes()
    exif = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    path.write_bytes(plain[:2] + b"\xff\xe1" + (len(exif) + 2).to_bytes(2, "big") + exif + plain[2:])
    assert load_image(Sample("a.jpg", path, None, "a")) == (path.read_bytes(), *SIZE)


def test_damaged_images_do_not_stop_the_others(tmp_path: Path) -> None:
    good = examples.write_image(tmp_path / "good.png")
    cut = examples.write_image(tmp_path / "cut.jpg")
    cut.write_bytes(cut.read_bytes()[:-300])
    (tmp_path / "empty.jpg").touch()
    paths = [cut, good, tmp_path / "empty.jpg", tmp_path / "absent.jpg"]
    loaded = list(load_images([Sample(path.name, path, None, path.name) for path in paths]))
    assert loaded[1] == (good.read_bytes(), *SIZE)
    for path, error in zip(paths, loaded, strict=True):
        assert path == good or (isinstance(error, InputError) and path.name in error.message)
