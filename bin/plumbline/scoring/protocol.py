"""The vocabulary of scoring: protocols, post-processings, roles of models (docs/protocol.md)."""

PROTOCOLS = ("paper", "corrected")
CHOSEN = {"paper": "best", "corrected": "selected"}  # the post-processing that stands for a model under each protocol
CENTER_PERTURBED = "center_perturbed"  # scored where a task asks for it, and never chosen
POSTPROCESSINGS = ("none", "center", "center_scale", "tvn")  # from the simplest on: ties go to the simpler one
NOISE = ("random", "scrambled_pca")  # floors that know nothing: draws of one chance level
REFERENCES = ("floor", "ceiling", "predictor")  # roles that calibrate; they are not candidates and share no family of tests
