"""The Rényi accountant [Mironov 2017]."""
