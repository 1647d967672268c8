"""From a finished run to files that other runtimes and microcontrollers take."""
