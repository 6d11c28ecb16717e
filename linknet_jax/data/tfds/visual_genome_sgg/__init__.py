"""The folder that `tfds build` takes."""
