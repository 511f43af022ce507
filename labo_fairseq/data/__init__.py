"""From archives or files of text to a prepared corpus: readers, tokenization, subwords, binary files."""
