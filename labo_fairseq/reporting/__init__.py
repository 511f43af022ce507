"""How results are shown, and nothing about what they are: tables, figures, one HTML page."""
