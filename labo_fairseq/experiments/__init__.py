"""From declarations to results: configurations, one run, grids of runs, their tables, reports."""
