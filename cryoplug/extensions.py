"""Plugins: commands, models and formats that other distributions offer through entry points.

A distribution joins by naming an object in its pyproject.toml::

    [project.entry-points."cryoplug.models"]
    my_net = "my_package:MY_NET_SPEC"

Names are found without importing anything; an object is imported when it is first asked for. A plugin that cannot be read,
imported or used is recorded as broken, with its reason. So is one that was written for another version of cryoplug.
Everything else goes on; `cryoplug plugins list` shows both. ``CRYOPLUG_NO_PLUGINS=1`` switches all of them off.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Literal

from cryoplug import __version__
from cryoplug.errors import UsageError

GROUPS = ("commands", "models", "formats")
"""What a plugin can offer; the entry-point groups are these names behind ``cryoplug.``."""

OFF_VARIABLE = "CRYOPLUG_NO_PLUGINS"
"""Environment variable: any value but an empty one or 0 switches plugins off."""

_PREFIX = "cryoplug."
_ENTRY_GROUPS = tuple(_PREFIX + group for group in GROUPS)
_ENTRY_POINTS_FILE = "entry_points.txt"
_UNREADABLE = "unreadable"
_SELF = "cryoplug"
_Key = tuple[str, str, str]


@dataclass(frozen=True)
class Extension:
    """One object that an installed distribution offers to cryoplug."""

    name: str
    """The command, model or format as the user will type it; a model's or format's own id is the same."""
    group: str
    """One of `GROUPS`; ``unreadable`` when the entry points of the distribution cannot be read at all."""
    distribution: str
    """Name of the distribution that brings it, as pip knows it."""
    version: str
    """Version of that distribution."""
    state: Literal["ok", "broken", "unloaded"] = "unloaded"
    """``unloaded``: found, but not imported yet."""
    error: str = ""
    """Why it is broken; empty otherwise."""

    @property
    def label(self) -> str:
        """The extension in words, for messages."""
        source = f"{self.distribution} {self.version}".strip()
        return f"{_PREFIX}{self.group} {self.name!r} of plugin {source}"


_loaded: dict[_Key, object] = {}
_failures: dict[_Key, str] = {}


def enabled() -> bool:
    """Say whether plugins are looked for at all."""
    return os.environ.get(OFF_VARIABLE, "") in ("", "0")


def discover(group: str) -> list[Extension]:
    """List what is installed for a group, without importing any of it.

    Parameters
    ----------
    group
        One of `GROUPS`.

    Returns
    -------
    list[Extension]
        Sorted by name, then distribution; ``state`` says what is known so far.

    Raises
    ------
    UsageError
        There is no such group.
    """
    if group not in GROUPS:
        raise UsageError(f"extension group {group!r} does not exist (groups: {', '.join(GROUPS)}); name one of them")
    return [extension for extension in installed() if extension.group == group]


def installed() -> list[Extension]:
    """List what is installed for all groups, and the distributions whose entry points cannot be read."""
    return [_with_state(extension) for extension, _ in _scan(tuple(sys.path))] if enabled() else []


def load(extension: Extension, *, expected: type | None = None) -> object:
    """Import one extension.

    Parameters
    ----------
    extension
        From `discover`.
    expected
        The class that its object must be an instance of; None accepts any object. The object may also be a function
        without arguments that returns such an object; it is called once.

    Raises
    ------
    UsageError
        It is broken; the message says which distribution and why. It stays broken for this process.
    """
    key = _key(extension)
    if key not in _loaded and key not in _failures:
        entry_point = next((entry for found, entry in _scan(tuple(sys.path)) if _key(found) == key), None)
        if entry_point is None:
            _failures[key] = extension.error or "it is no longer installed"
        else:
            _import(key, entry_point)
    if key in _loaded and expected is not None:
        _check(key, expected)
    if key in _failures:
        raise UsageError(f"{extension.label} is broken: {_failures[key]}; update or uninstall {extension.distribution}")
    return _loaded[key]


def load_all(group: str, *, expected: type | None = None) -> dict[str, object]:
    """Import everything that is installed for a group; whatever is broken is left out and recorded.

    Parameters
    ----------
    group
        One of `GROUPS`.
    expected
        The class that each object must be an instance of; None accepts any object.

    Returns
    -------
    dict[str, object]
        The objects by name. When two distributions offer one name, the first in the alphabet keeps it and the other is
        recorded as broken.
    """
    objects: dict[str, object] = {}
    owners: dict[str, Extension] = {}
    for extension in discover(group):
        if extension.name in owners:
            reject(extension, f"the name {extension.name!r} is taken by {owners[extension.name].distribution}")
            continue
        try:
            objects[extension.name] = load(extension, expected=expected)
        except UsageError:
            continue
        owners[extension.name] = extension
    return objects


def load_named(group: str, name: str, *, expected: type | None = None) -> object | None:
    """Import what a group has under a name, and nothing else.

    Parameters
    ----------
    group
        One of `GROUPS`.
    name
        As the user typed it.
    expected
        As for `load`.

    Returns
    -------
    object | None
        The object that `load_all` gives this name; None when nothing is installed under it.

    Raises
    ------
    UsageError
        Everything that has this name is broken; the message is that of the first.
    """
    problem: UsageError | None = None
    for extension in discover(group):
        if extension.name == name:
            try:
                return load(extension, expected=expected)
            except UsageError as error:
                problem = problem or error
    if problem is not None:
        raise problem
    return None


def reject(extension: Extension, reason: str) -> None:
    """Record that an extension is broken: its name is taken, or its object does not do what it must."""
    _fail(_key(extension), reason)


def broken() -> list[Extension]:
    """List the extensions that are known to be broken so far; load a group to find all that are broken in it."""
    return [extension for extension in installed() if extension.state == "broken"]


def _key(extension: Extension) -> _Key:
    return (extension.group, extension.name, extension.distribution)


def _with_state(extension: Extension) -> Extension:
    key = _key(extension)
    if extension.error or key in _failures:
        return replace(extension, state="broken", error=_failures.get(key, extension.error))
    return replace(extension, state="ok") if key in _loaded else extension


def _import(key: _Key, entry_point: metadata.EntryPoint) -> None:
    unsuited = _unsuited(entry_point.dist)
    if unsuited:
        _failures[key] = unsuited
        return
    try:
        _loaded[key] = _guarded(entry_point.load)
    except (Exception, SystemExit) as error:  # noqa: BLE001 -- see _guarded
        _failures[key] = f"importing {entry_point.value} failed: {_reason(error)}"


def _guarded(foreign: Callable[[], object]) -> object:
    # Somebody else's code may raise anything, sys.exit included; none of it may stop cryoplug. What it prints must not
    # get between the results on stdout.
    with contextlib.redirect_stdout(sys.stderr):
        return foreign()


def _unsuited(distribution: metadata.Distribution | None) -> str:
    """Say which version of cryoplug a distribution needs; empty when this version suits it.

    pip checks this when the plugin is installed, but not when cryoplug is updated later.
    """
    from packaging.requirements import InvalidRequirement, Requirement
    from packaging.utils import canonicalize_name

    for line in (distribution.requires if distribution is not None else None) or ():
        try:
            wanted = Requirement(line)
        except InvalidRequirement:
            continue  # of another library; pip has refused it or will
        meant = canonicalize_name(wanted.name) == _SELF and (wanted.marker is None or wanted.marker.evaluate())
        if meant and not wanted.specifier.contains(__version__, prereleases=True):
            return f"it is for {wanted.name}{wanted.specifier}, and this is {__version__}"
    return ""


def _check(key: _Key, expected: type) -> None:
    value: Any = _loaded[key]
    if not isinstance(value, expected) and callable(value) and not isinstance(value, type):
        try:
            value = _guarded(value)
        except (Exception, SystemExit) as error:  # noqa: BLE001 -- see _guarded
            return _fail(key, f"calling it failed: {_reason(error)}")
    if not isinstance(value, expected):
        found, needed = type(value).__name__, expected.__name__
        return _fail(key, f"its entry point leads to a {found}; a {needed} is needed (see docs/plugins.md)")
    name = getattr(value, "id", key[1])
    if name != key[1]:
        return _fail(key, f"its id is {name!r}, but its entry point is called {key[1]!r}; give both one name")
    _loaded[key] = value
    return None


def _fail(key: _Key, reason: str) -> None:
    _loaded.pop(key, None)
    _failures[key] = reason


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ").splitlines()[0]


@functools.lru_cache(maxsize=1)
def _scan(search_path: tuple[str, ...]) -> tuple[tuple[Extension, metadata.EntryPoint | None], ...]:
    # importlib.metadata.entry_points() fails as a whole when one entry_points.txt is malformed; so each distribution is
    # read by itself. The path is a parameter only so that the cache notices a change of it.
    found: dict[_Key, tuple[Extension, metadata.EntryPoint | None]] = {}
    for distribution in metadata.distributions(path=list(search_path)):
        try:
            if _PREFIX not in (distribution.read_text(_ENTRY_POINTS_FILE) or ""):
                continue
        except (OSError, ValueError):
            continue  # unreadable: it cannot be known whether it concerns cryoplug at all
        name, version = _identity(distribution)
        try:
            entries = [entry for entry in distribution.entry_points if entry.group in _ENTRY_GROUPS]
        except (TypeError, ValueError) as error:
            reason = f"its entry_points.txt cannot be read: {_reason(error)}"
            unreadable = Extension(_ENTRY_POINTS_FILE, _UNREADABLE, name, version, "broken", reason)
            found.setdefault(_key(unreadable), (unreadable, None))
            continue
        for entry in entries:
            extension = Extension(entry.name, entry.group.removeprefix(_PREFIX), name, version)
            found.setdefault(_key(extension), (extension, entry))
    return tuple(sorted(found.values(), key=lambda pair: (pair[0].group, pair[0].name, pair[0].distribution)))


def _identity(distribution: metadata.Distribution) -> tuple[str, str]:
    # A folder without a readable METADATA still has its own name: "my_plugin-1.0.dist-info".
    folder = str(getattr(distribution, "_path", "unknown")).rpartition("/")[2]
    name, version = folder.partition("-")[0], ""
    try:
        fields = distribution.metadata
        return str(fields["Name"] or name), str(fields["Version"] or version)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, metadata.PackageNotFoundError):
        return name, version
