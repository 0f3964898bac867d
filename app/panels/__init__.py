"""What every panel shows: a run, a selection and options in; a figure, its table and its words out. No streamlit.

Pages, reports, the command line and notebooks draw the same panels, by their keys: :mod:`app.panels.registry`.
"""
