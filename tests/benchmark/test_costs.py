"""Parameters, multiplications and bytes, counted by hand."""

from pathlib import Path

from example_networks import small_checkpoint

from dhm_cli.benchmark.baselines import REFERENCE
from dhm_cli.benchmark.costs import costs
from dhm_cli.benchmark.measured_networks import MeasuredNetwork, find_networks


def network_of(path: Path) -> MeasuredNetwork:
    return find_networks([str(path)])[0]


def test_costs_of_the_reference_by_hand() -> None:
    sides = (60, 30, 30, 15, 15, 8, 8, 8, 8, 8, 8, 4, 4)  # of the outputs of the blocks, from 60 x 60 after the stem
    channels = (16, 32, 64, 64, 128, 128, 256, 256, 256, 256, 256, 256, 512, 512)
    macs, parameters = 60**2 * 27 * 16, 27 * 16 + 2 * 16
    for side, before, after in zip(sides, channels[:-1], channels[1:], strict=True):
        macs += side**2 * (9 * before + before * after)
        parameters += 9 * before + 2 * before + before * after + 2 * after
    network = next(s for s in find_networks(["fast"]) if s.name == REFERENCE)
    found = costs(network)
    assert found.macs == macs + 512 * 62
    assert found.parameters == parameters + 512 * 62 + 62
    # Beside the parameters, mean and variance of every channel of batch norm.
    norms = 16 + sum(channels[:-1]) + sum(channels[1:])
    assert found.float32_bytes == 4 * (found.parameters + 2 * norms)


def test_costs_of_files(tmp_path: Path, dummy_network: Path) -> None:
    found = costs(network_of(dummy_network))
    assert found.file_bytes == dummy_network.stat().st_size
    assert 0 < found.compressed_bytes < found.file_bytes
    # axes, last, direction and base of `write_dummy_network`.
    assert (found.parameters, found.macs) == (3 + 1 + 3 + 68 * 3, None)
    path = small_checkpoint(tmp_path / "small.safetensors")
    found = costs(network_of(path))
    assert (found.sized_file, found.file_bytes) == ("small.safetensors", path.stat().st_size)
