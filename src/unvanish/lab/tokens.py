"""The special token ids that start every vocabulary."""

PAD, BEGIN, END, UNKNOWN = range(4)
SPECIAL = ("[PAD]", "[BEGIN]", "[END]", "[UNKNOWN]")
