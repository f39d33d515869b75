"""The blocks: one idea a file, found by being there; plain modules that need no YAML.

Notable: how a block is written, so that the builder can use it:
- Its constructor's first parameter is `width_in: int`, the channels of its (first) input, or
  `widths_in: Sequence[int]` where it joins several. Channels are dimension 1 of (B, C, H, W), the last one of
  (B, T, C) and (B, C). Token ids have none: an embedding takes `vocabulary` first.
- Parameters named activation, norm, depth (residual branches of the net), variant (the scale's name),
  classes, vocabulary, target_vocabulary, length, features, outputs, size are filled from the YAML's top level
  or from the data where a row leaves them out.
- `repeats: n` stacks n of them, unless the constructor has a parameter `repeats`; `stride` is then the first
  one's only. With several inputs the first one is handed on, the others go to each.
- `SCALED` names the arguments that the scale's width multiplies ("out" where there is none), `BRANCHES`
  counts the residual branches of one block (0).
- `place(self, strides)` is told how many pixels of the image a cell of each input is, when the net is built.
- `initialise(self, begin)` holds a block's own rules of beginning (see `unvanish.lab.models.initialise`).
"""
