"""Data, model, loss and metric of each task: nothing here is private, nothing here adds noise."""
