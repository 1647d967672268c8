"""Files of frozen models, one kind a module; no kind runs what a pickle says."""
