"""Commands that messages advise: whatever names are in them, they can be pasted into a shell, and are one line."""

from __future__ import annotations

import shlex


def command(program: str, *arguments: object) -> str:
    """A command line, e.g. command("test.py", "--run", run); IMAGES and the like stand for what is not known."""
    return " ".join(["python", program, *(_quoted(str(argument)) for argument in arguments)])


def _quoted(text: str) -> str:
    """A word for the shell; with line breaks, escape codes and the like as bash and zsh write them, $'\\u000a'."""
    if text.isprintable():
        return shlex.quote(text)
    return "$'" + "".join(_escaped(character) for character in text) + "'"


def _escaped(character: str) -> str:
    if character.isprintable():
        return f"\\{character}" if character in "\\'" else character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"
