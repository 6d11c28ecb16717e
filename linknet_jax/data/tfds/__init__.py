"""TensorFlow Datasets: the builder `visual_genome_sgg` and training from what it prepared."""
