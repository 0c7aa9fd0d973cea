"""The shared core: every network, nn.Module only."""
