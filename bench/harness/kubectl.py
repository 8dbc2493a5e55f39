"""kubectl, called and read."""

import subprocess

from .processes import BenchError


def kubectl(*arguments, stdin=""):
    """Returns what it prints; it must succeed."""
    return called(["kubectl", *arguments], stdin)


def called(command, stdin=""):
    """The same of any command."""
    command = [str(word) for word in command]
    run = subprocess.run(command, input=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    if run.returncode != 0:
        raise BenchError(f"{' '.join(command)}: {run.stderr.strip()[-2000:]}")
    return run.stdout


def once(text, before, after):
    """The manifest with one place of its text replaced, if there is exactly one."""
    if text.count(before) != 1:
        raise BenchError(f"the manifest has {text.count(before)} places that say {before!r}")
    return text.replace(before, after)
