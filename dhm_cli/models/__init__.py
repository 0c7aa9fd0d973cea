"""The shared core: every network, nn.Module only, and its checkpoints."""
