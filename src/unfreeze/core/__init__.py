"""The staged engine: any Keras model, any schedule, on any backend.

Imports keras and numpy only, and nothing from the outer rooms.
"""
