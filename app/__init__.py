"""What a person sees: pages, figures, reports and the command line."""
