"""Claims: what papers report, each tested on a model and a prompt set, with an interval, a control and a verdict."""
