"""The application: ``python -m dpsgd_torch.train`` from its flags to its report."""
