"""Other tools that speak of gradients, on the same networks: what they say, their false alarms, their cost.

Run it with `python -m benchmarks.peers --cache FOLDER`. Each tool gets an environment of its own there.

Notable:
- A tool is used as its own documentation says (`adapters/`, one file each): its defaults, in a training loop,
  or one call if that is how it is used. `published.py` beside this folder holds the rules of papers.
- All see the same: sick networks with their fixed twins, and healthy ones (`cases.py`). A monitor watches a
  training of `--steps` steps on one batch.
- Generous to the tools: any warning on a sick network counts as *said something*; `kinds.py` writes down
  what each kind of words may stand for, and one of the right kind among many is *named*.
"""
