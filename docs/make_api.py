#!/usr/bin/env python3
"""Write docs/api.md: what `import plumbline` offers, from the docstrings."""

import inspect
import re
import sys
from pathlib import Path
from types import FunctionType

ROOT = Path(__file__).resolve().parents[1]
SECTION = re.compile(r"^(\w+)\n-{3,}\n", re.MULTILINE)
HEAD = """# Python API

Made from the docstrings by `docs/make_api.py`; do not edit. How to use it: [plumbline from Python](python.md).
"""


def main() -> None:
    (ROOT / "docs/api.md").write_text(page())


def page() -> str:
    """The whole page."""
    sys.path.insert(0, str(ROOT / "bin"))
    import plumbline as pl

    parts = [HEAD]
    for name, thing in [("Screen", pl.Screen), ("Benchmark", pl.Benchmark), ("Result", pl.Result)]:
        parts.append(of_class(name, thing, made_by_calling=name == "Benchmark"))
    parts.append(entry("evaluate", pl.evaluate, "##"))
    parts.append(of_class("callbacks.Evaluator", pl.callbacks.Evaluator, made_by_calling=True))
    parts.append(entry("callbacks.Lightning", pl.callbacks.Lightning, "##"))
    return "\n".join(parts)


def of_class(name: str, thing: type, made_by_calling: bool) -> str:
    """A class: its docstring, then its public methods in the order of the source."""
    title = f"## plumbline.{name}\n\n"
    title += f"```text\n{signature(name, thing.__init__, bound=True)}\n```\n\n" if made_by_calling else ""
    parts = [title + text_of(thing)]
    for method, value in vars(thing).items():
        function = value.__func__ if isinstance(value, classmethod) else value
        if isinstance(function, FunctionType) and (method == "__call__" or not method.startswith("_")):
            shown = f"{name}.{method}" if isinstance(value, classmethod) else f"{name.split('.')[-1].lower()}.{method}"
            parts.append(entry(shown.removesuffix(".__call__"), function, "###", bound=True))
    return "\n".join(parts)


def entry(name: str, function: FunctionType, heading: str, bound: bool = False) -> str:
    """One function: heading, signature, docstring."""
    title = name.split(".")[-1] if heading == "###" else f"plumbline.{name}"
    return f"{heading} {title}\n\n```text\n{signature(name, function, bound)}\n```\n\n{text_of(function)}"


def signature(name: str, function: FunctionType, bound: bool) -> str:
    """Names and defaults of the parameters, without types."""
    found = list(inspect.signature(function).parameters.values())[1 if bound else 0 :]
    plain = inspect.Signature([one.replace(annotation=inspect.Parameter.empty) for one in found])
    return f"{name}{plain}"


def text_of(thing: object) -> str:
    """A numpydoc docstring as Markdown: each section a list."""
    text = inspect.cleandoc(thing.__doc__ or "").replace("``", "`")
    text = re.sub(r"docs/(\w+\.md)", r"[\1](\1)", text)
    first, *rest = SECTION.split(text)
    parts = [unwrapped(first)]
    for title, body in zip(rest[::2], rest[1::2], strict=True):
        parts.append(f"**{title}**\n\n{listed(body)}")
    return "\n\n".join(parts) + "\n"


def listed(body: str) -> str:
    """Entries of a section: the name or type, then its indented description."""
    entries = re.findall(r"^(\S.*)\n((?:[ ]+.*\n?|\n)+)", body + "\n", re.MULTILINE)
    return "\n".join(f"- `{name}`: {' '.join(about.split())}" for name, about in entries)


def unwrapped(text: str) -> str:
    """Paragraphs, one line each."""
    return "\n\n".join(" ".join(part.split()) for part in text.strip().split("\n\n"))


if __name__ == "__main__":
    main()
