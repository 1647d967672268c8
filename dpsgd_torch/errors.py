"""What can go wrong on the training side. Each message: name, value, rule, next move.

accountant.PrivacyError
└── TrainingError
    ├── ConfigError        a flag or preset outside its domain
    ├── DataError          data that is missing, damaged or not what it claims
    ├── ModelError         a model or loss whose gradient cannot be private per example
    ├── RunError           a run folder that cannot be written or resumed
    ├── ExportError        a model, tool or flag that leads to no file for a microcontroller
    └── GuaranteeBroken    what ran is not what was planned or charged: nothing is released
"""

from accountant import PrivacyError


class TrainingError(PrivacyError):
    """Root of everything the trainer raises on purpose."""


class ConfigError(TrainingError, ValueError):
    """A flag or preset outside its domain."""


class DataError(TrainingError):
    """Data that is missing, damaged or not what it claims."""


class ModelError(TrainingError, ValueError):
    """A model or loss whose gradient cannot be private per example."""


class RunError(TrainingError):
    """A run folder that cannot be written or resumed."""


class ExportError(TrainingError):
    """A model, tool or flag that leads to no file for a microcontroller."""


class GuaranteeBroken(TrainingError):
    """What ran is not what was planned or charged: nothing is released."""
