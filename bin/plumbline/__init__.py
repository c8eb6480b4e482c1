"""plumbline: does this cell embedding beat one PCA on perturbation data?"""

__version__ = "0.1.0"
