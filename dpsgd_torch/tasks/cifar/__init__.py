"""CIFAR-10's 32×32 colour images."""
