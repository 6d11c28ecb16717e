"""Public files from the network: where they are, and how they get here whole."""
