"""Image classification with the methods of the paper's Tables 3 and 5; nothing in here imports fairseq."""
