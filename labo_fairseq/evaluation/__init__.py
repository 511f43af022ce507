"""From a checkpoint to scores: fairseq-generate, metrics, significance, averages of checkpoints, training logs."""
