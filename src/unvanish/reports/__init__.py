"""Reports of a diagnosis: text for terminals, JSON for programs, HTML for people and notebooks.

Notable:
- The folder is the registry: `unvanish.registry.report(".txt" | ".json" | ".html")` finds the module.
- Every report offers `render(diagnosis) -> str`; the text adds `print_report`, the HTML adds `fragment`.
- They read `types.Diagnosis` and the ledger and know nothing else; no report needs torch.
- The order is the same everywhere: from the loss (first, top, left) to the input (last, bottom, right).
"""
