"""Speed and costs of networks, measured side by side."""
