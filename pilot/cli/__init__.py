"""The command line: `python -m pilot`, installed as `pilot` too."""
