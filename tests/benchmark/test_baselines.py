"""MobileNet-V1 is that of its paper."""

import torch

from dhm_cli.benchmark.baselines import REFERENCE, MobileNetV1, baseline
from dhm_cli.benchmark.costs import multiplications


def test_mobilenet_has_the_costs_of_its_paper() -> None:
    """Howard et al. 2017, Table 4: 4.2 million parameters, 569 million multiply-adds at 224 x 224, 1000 classes."""
    network, image = MobileNetV1(1.0, 1000).eval(), torch.zeros(1, 3, 224, 224)
    # 4,209,088 of convolutions and the classifier with its bias, and two a channel of 10,944 channels of batch norm
    # (32 + 32 and the in- and outputs of thirteen blocks).
    assert sum(p.numel() for p in network.parameters()) == 4_231_976
    assert multiplications(network, image) == 568_740_352


def test_the_folded_baseline_is_the_baseline() -> None:
    network = baseline(REFERENCE)
    generator = torch.Generator().manual_seed(1)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean = torch.rand(module.num_features, generator=generator) - 0.5
            module.running_var = torch.rand(module.num_features, generator=generator) + 0.5
    images = torch.rand(2, 3, 120, 120, generator=generator)
    with torch.no_grad():
        torch.testing.assert_close(network.folded()(images), network(images), rtol=1e-4, atol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in network.folded().modules())
