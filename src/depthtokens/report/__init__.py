"""How results are shown: tables and pages."""
