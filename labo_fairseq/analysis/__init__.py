"""What distinguishes finished runs beyond their scores: one module per analysis, with its numbers, table and figure."""
