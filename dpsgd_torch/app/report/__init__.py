"""What a person reads of a run: the statement in words, the plots, the page."""
