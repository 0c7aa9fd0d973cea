"""The named layout of p."""

import pytest
import torch

from dhm_cli.morphable.parameters import LAYOUT, NUM_PARAMETERS, Parameters, pack, unpack


def test_order_of_the_method() -> None:
    """p = [f, pitch, yaw, roll, t_x, t_y, 199 identity, 29 expression]."""
    parts = unpack(torch.arange(234.0)[None])
    assert parts.scale.tolist() == [0.0]
    assert parts.angles.tolist() == [[1.0, 2.0, 3.0]]
    assert parts.translation.tolist() == [[4.0, 5.0]]
    assert parts.identity[0].tolist() == list(range(6, 205))
    assert parts.expression[0].tolist() == list(range(205, 234))


def test_layout_covers_everything_once() -> None:
    covered = [i for part in LAYOUT.values() for i in range(part.start, part.stop)]
    assert sorted(covered) == list(range(NUM_PARAMETERS))
    assert NUM_PARAMETERS == 234


def test_pack_undoes_unpack() -> None:
    p = torch.randn(5, 234, generator=torch.Generator().manual_seed(0))
    assert torch.equal(pack(unpack(p)), p)


def test_short_coefficients_are_padded_with_zeros() -> None:
    parts = Parameters(torch.ones(2), torch.ones(2, 3), torch.ones(2, 2), torch.ones(2, 40), torch.ones(2, 10))
    p = pack(parts)
    assert p.shape == (2, 234)
    assert p[:, 6:46].eq(1).all()
    assert p[:, 46:205].eq(0).all()
    assert p[:, 205:215].eq(1).all()
    assert p[:, 215:].eq(0).all()


def test_a_wrong_length_is_named() -> None:
    with pytest.raises(ValueError, match=r"234.*\(2, 62\)"):
        unpack(torch.zeros(2, 62))
