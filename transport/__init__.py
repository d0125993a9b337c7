"""Words and wires: the vocabulary, the confirmed session and its links."""
