"""The ids that every vocabulary begins with."""

PAD, BEGIN, END, UNKNOWN = range(4)
SPECIAL = ("[PAD]", "[BEGIN]", "[END]", "[UNKNOWN]")
