"""Real text and real fairseq commands for the tests."""
