"""From a checkpoint to scores: decoding with fairseq-generate, metrics, significance, and the files of a run."""
