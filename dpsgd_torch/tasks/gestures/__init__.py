"""Gestures recorded with an Arduino's motion sensor."""
