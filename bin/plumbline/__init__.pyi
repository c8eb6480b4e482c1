from plumbline.benchmark import callbacks as callbacks
from plumbline.benchmark.benchmark import Benchmark as Benchmark
from plumbline.benchmark.result import Result as Result
from plumbline.benchmark.screens import Screen as Screen
from plumbline.benchmark.shortcut import evaluate as evaluate

__version__: str
