"""How much one stage-out saves at most, whatever the payload left behind."""

FILES_PER_PATTERN_MAX = 100_000
SINGLE_FILES_MAX = 5000
"""Files outside archives that one stage-out saves: as many as the job's end can tell of."""
SAVED_BYTES_MAX = 100_000_000_000
"""What one stage-out reads to save it: about what a fast disk takes in the time for saving."""
NOTES_MAX = 200
"""Of one stage-out, and a last one that counts the others."""
