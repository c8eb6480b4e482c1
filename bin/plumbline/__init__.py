"""plumbline: does this cell embedding beat one PCA on perturbation data?

    import plumbline as pl

    screen = pl.Screen.from_anndata(adata, perturbation="gene", control="non-targeting", batch="gem_group")
    bench = pl.Benchmark(screen)
    bench.evaluate("X_mymodel").summary()

What is named here is imported when it is first used: the import itself takes no time, and no other package.
"""

from importlib import import_module as _import_module

__version__ = "0.1.0"

# name -> the module that holds it; no import statements, which would make every stage depend on every file
_FACE = {
    "Screen": "plumbline.benchmark.screens",
    "Benchmark": "plumbline.benchmark.benchmark",
    "Result": "plumbline.benchmark.result",
    "evaluate": "plumbline.benchmark.shortcut",
    "callbacks": "plumbline.benchmark.callbacks",
}
__all__ = ["Benchmark", "Result", "Screen", "__version__", "callbacks", "evaluate"]


def __getattr__(name: str) -> object:
    if name not in _FACE:
        raise AttributeError(f"module 'plumbline' has no attribute {name!r}")
    module = _import_module(_FACE[name])
    return module if name == "callbacks" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
